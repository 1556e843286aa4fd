-- Tenants with their keys, orders and usage; a place for each event among all of its tenant's.

-- Places are never used twice, also not those of events that have been removed: hence AUTOINCREMENT.
CREATE TABLE placed_events (
    place  INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    event  TEXT    NOT NULL, -- JSON
    UNIQUE (tenant, job, seq)
) STRICT;

-- Ids of jobs sort by the time the jobs were made.
INSERT INTO placed_events (tenant, job, seq, event) SELECT tenant, job, seq, event FROM events ORDER BY job, seq;
DROP TABLE events;
ALTER TABLE placed_events RENAME TO events;

-- Ends in the place, as every index does in the rowid.
CREATE INDEX events_of_tenant ON events (tenant);

CREATE INDEX jobs_by_state ON jobs (tenant, state, id);

CREATE TABLE tenants (
    id             TEXT    NOT NULL PRIMARY KEY,
    state          TEXT    NOT NULL,
    weight         REAL    NOT NULL,
    quotas         TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    tenant         TEXT    NOT NULL,
    scopes         TEXT    NOT NULL, -- JSON
    digest         BLOB    NOT NULL,
    label          TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    expires_millis INTEGER,
    revoked_millis INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_of_tenant ON keys (tenant, created_millis);

CREATE TABLE orders (
    tenant        TEXT    NOT NULL,
    job           TEXT    NOT NULL,
    body          TEXT    NOT NULL, -- JSON
    webhook_tries INTEGER,          -- NULL when none is owed
    PRIMARY KEY (tenant, job)
) STRICT;

CREATE INDEX orders_with_webhook ON orders (tenant, job) WHERE webhook_tries IS NOT NULL;

-- A client's word for a request.
CREATE TABLE words (
    tenant         TEXT    NOT NULL,
    word           TEXT    NOT NULL,
    digest         BLOB    NOT NULL,
    job            TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    PRIMARY KEY (tenant, word)
) STRICT, WITHOUT ROWID;

CREATE INDEX words_by_age ON words (created_millis);

CREATE TABLE usage (
    tenant           TEXT    NOT NULL,
    day              INTEGER NOT NULL,
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

-- Bytes of originals and blobs. `exact` only while no process holds the folder, and only if the last one ended well.
CREATE TABLE kept (
    tenant TEXT    NOT NULL PRIMARY KEY,
    bytes  INTEGER NOT NULL,
    exact  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
