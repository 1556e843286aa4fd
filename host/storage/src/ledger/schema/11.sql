-- A document that was removed since stays listed among its jobs'. Secrets of jobs that have ended are not kept.

ALTER TABLE job_documents ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;

CREATE INDEX job_documents_removed ON job_documents (tenant, job) WHERE removed;

UPDATE orders SET body = json_set(body, '$.files',
        (SELECT json_group_array(json_remove(file.value, '$.password')) FROM json_each(orders.body, '$.files') AS file))
    WHERE EXISTS (SELECT 1 FROM json_each(orders.body, '$.files') AS file
            WHERE json_extract(file.value, '$.password') IS NOT NULL)
        AND EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant = orders.tenant AND jobs.id = orders.job
            AND jobs.state NOT IN ('queued', 'running'));
UPDATE orders SET body = json_remove(body, '$.webhook') WHERE webhook_tries IS NULL;
