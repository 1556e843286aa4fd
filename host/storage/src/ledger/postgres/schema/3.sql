-- Keys with which all nodes sign: that of links has the name 'links'.
CREATE TABLE signing_keys (
    name TEXT COLLATE "C" PRIMARY KEY,
    key  BYTEA NOT NULL
);

-- Retention periods of the tenant that differ from the host's defaults (JSON).
ALTER TABLE tenants ADD COLUMN retention TEXT NOT NULL DEFAULT '{}';

-- Expired jobs are found by their age.
CREATE INDEX jobs_ended ON jobs (tenant, created_millis, id) WHERE state NOT IN ('queued', 'running');

-- The documents of a job, also to find out whether one of them was removed.
DROP INDEX job_documents_removed;
CREATE INDEX job_documents_of_job ON job_documents (tenant, job);
