-- A job keeps its removed documents in its list. The secrets of ended jobs are removed.

ALTER TABLE job_documents ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;

CREATE INDEX job_documents_removed ON job_documents (tenant, job) WHERE removed;

UPDATE job_requests SET request = json_set(request, '$.files',
        (SELECT json_group_array(json_remove(file.value, '$.password'))
            FROM json_each(job_requests.request, '$.files') AS file))
    WHERE EXISTS (SELECT 1 FROM json_each(job_requests.request, '$.files') AS file
            WHERE json_extract(file.value, '$.password') IS NOT NULL)
        AND EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant = job_requests.tenant AND jobs.id = job_requests.job
            AND jobs.state NOT IN ('queued', 'running'));
UPDATE job_requests SET request = json_remove(request, '$.webhook') WHERE webhook_attempts IS NULL;
