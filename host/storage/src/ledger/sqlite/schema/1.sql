-- Rows are in the order of writing: a replaced row gets a new rowid, which is the highest.

CREATE TABLE documents (
    tenant         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    pages          INTEGER NOT NULL,
    title          TEXT,
    outline        TEXT    NOT NULL, -- JSON
    collection     TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX documents_by_age ON documents (tenant, created_millis);

CREATE TABLE jobs (
    tenant         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    pipeline       TEXT    NOT NULL,
    revision       TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX jobs_unfinished ON jobs (created_millis) WHERE state IN ('queued', 'running');

CREATE TABLE pages (
    tenant   TEXT    NOT NULL,
    document TEXT    NOT NULL,
    page     INTEGER NOT NULL,
    revision TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    state    TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, document, page, revision)
) STRICT;

CREATE TABLE events (
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    event  TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, job, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_state (
    tenant   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    BLOB NOT NULL,
    PRIMARY KEY (tenant, pipeline, key)
) STRICT, WITHOUT ROWID;
