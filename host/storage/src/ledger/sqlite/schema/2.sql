-- Tenants with their API keys, job requests and usage. Each event gets a position among all events.

-- AUTOINCREMENT, because the position of a removed event must not be used again.
CREATE TABLE positioned_events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    event    TEXT    NOT NULL, -- JSON
    UNIQUE (tenant, job, seq)
) STRICT;

-- Job ids sort by the time of creation.
INSERT INTO positioned_events (tenant, job, seq, event) SELECT tenant, job, seq, event FROM events ORDER BY job, seq;
DROP TABLE events;
ALTER TABLE positioned_events RENAME TO events;

-- Every index ends in the rowid, which is the position here.
CREATE INDEX events_of_tenant ON events (tenant);

CREATE INDEX jobs_by_state ON jobs (tenant, state, id);

CREATE TABLE tenants (
    id             TEXT    NOT NULL PRIMARY KEY,
    state          TEXT    NOT NULL,
    weight         REAL    NOT NULL,
    quotas         TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    tenant         TEXT    NOT NULL,
    scopes         TEXT    NOT NULL, -- JSON
    secret_digest  BLOB    NOT NULL, -- SHA-256
    label          TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    expires_millis INTEGER,
    revoked_millis INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_of_tenant ON api_keys (tenant, created_millis);

CREATE TABLE job_requests (
    tenant           TEXT    NOT NULL,
    job              TEXT    NOT NULL,
    request          TEXT    NOT NULL, -- JSON
    webhook_attempts INTEGER,          -- NULL if no webhook has to be sent
    PRIMARY KEY (tenant, job)
) STRICT;

CREATE INDEX job_requests_with_webhook ON job_requests (tenant, job) WHERE webhook_attempts IS NOT NULL;

CREATE TABLE idempotency_keys (
    tenant         TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    request_digest BLOB    NOT NULL, -- SHA-256
    job            TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_millis);

CREATE TABLE daily_usage (
    tenant           TEXT    NOT NULL,
    day              INTEGER NOT NULL, -- since 1970
    requests         INTEGER NOT NULL,
    jobs             INTEGER NOT NULL,
    upload_bytes     INTEGER NOT NULL,
    pages            INTEGER NOT NULL,
    inference_micros INTEGER NOT NULL,
    guest_micros     INTEGER NOT NULL,
    searches         INTEGER NOT NULL,
    refusals         INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;

-- Bytes of uploads, blobs and components. `exact` is true only while no process holds the folder, and only if the last process
-- closed it.
CREATE TABLE storage_usage (
    tenant TEXT    NOT NULL PRIMARY KEY,
    bytes  INTEGER NOT NULL,
    exact  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
