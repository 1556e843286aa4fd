-- Claims: which node runs a job. `owner` is NULL while no node does. `epoch` counts the claims of the job.
ALTER TABLE jobs ADD COLUMN owner TEXT;
ALTER TABLE jobs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lease_until_millis INTEGER;
ALTER TABLE jobs ADD COLUMN lost_claims INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT FALSE;

CREATE INDEX jobs_claimed ON jobs (tenant) WHERE owner IS NOT NULL;
CREATE INDEX jobs_of_node ON jobs (owner) WHERE owner IS NOT NULL;

-- Work that one node does at a time, such as sending webhooks.
CREATE TABLE node_duties (
    duty               TEXT    NOT NULL PRIMARY KEY,
    owner              TEXT    NOT NULL,
    lease_until_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
