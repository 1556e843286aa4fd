-- Claims: which node runs a job. `owner` is NULL while no node does. `epoch` counts the claims of the job.
ALTER TABLE jobs ADD COLUMN owner TEXT;
ALTER TABLE jobs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lease_until_millis INTEGER;
ALTER TABLE jobs ADD COLUMN lost_claims INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT FALSE;

CREATE INDEX jobs_claimed ON jobs (tenant, owner) WHERE owner IS NOT NULL;
