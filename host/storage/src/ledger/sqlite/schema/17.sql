-- Keys with which all nodes sign: that of links has the name 'links'.
CREATE TABLE signing_keys (
    name TEXT PRIMARY KEY,
    key  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Retention periods of the tenant that differ from the host's defaults (JSON).
ALTER TABLE tenants ADD COLUMN retention TEXT NOT NULL DEFAULT '{}';

-- When a job ended, by the clock of the database; NULL for jobs that ended under an earlier version. Expired jobs are found by it.
ALTER TABLE jobs ADD COLUMN ended_millis INTEGER;
CREATE INDEX jobs_ended ON jobs (tenant, coalesce(ended_millis, created_millis), id) WHERE state NOT IN ('queued', 'running');

-- The documents of a job, also to find out whether one of them was removed.
DROP INDEX job_documents_removed;
CREATE INDEX job_documents_of_job ON job_documents (tenant, job);
CREATE INDEX idempotency_keys_of_job ON idempotency_keys (tenant, job);
