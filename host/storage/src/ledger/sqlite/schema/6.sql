-- The documents of each job, and the documents that are being removed.

CREATE TABLE job_documents (
    tenant   TEXT NOT NULL,
    document TEXT NOT NULL,
    job      TEXT NOT NULL,
    PRIMARY KEY (tenant, document, job)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO job_documents (tenant, document, job)
    SELECT tenant, json_extract(file.value, '$.document'), job
    FROM job_requests, json_each(job_requests.request, '$.files') AS file;
-- Jobs of the command line have no job request.
INSERT OR IGNORE INTO job_documents (tenant, document, job)
    SELECT tenant, json_extract(event, '$.document'), job FROM events
    WHERE json_extract(event, '$.type') = 'document-started' AND json_extract(event, '$.document') IS NOT NULL;

CREATE TABLE document_removals (
    tenant   TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (tenant, document)
) STRICT, WITHOUT ROWID;
