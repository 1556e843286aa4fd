-- Tenants' components, revisions and rollouts, and how the jobs of each revision went.

CREATE TABLE components (
    tenant         TEXT    NOT NULL,
    digest         BLOB    NOT NULL, -- SHA-256 of its bytes
    name           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    facts          TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL,
    key            TEXT    NOT NULL, -- public part of the key it was pushed with
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    tenant         TEXT    NOT NULL,
    pipeline       TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    recipe         TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    PRIMARY KEY (tenant, pipeline, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
    tenant   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    rollout  TEXT NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    tenant   TEXT    NOT NULL,
    pipeline TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    entry    TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline, seq)
) STRICT, WITHOUT ROWID;

-- What a job was given, and how it went.
CREATE TABLE assignments (
    tenant       TEXT    NOT NULL,
    job          TEXT    NOT NULL,
    pipeline     TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    canary       INTEGER NOT NULL,
    ended_millis INTEGER, -- NULL until it has ended
    showing      TEXT,    -- JSON
    PRIMARY KEY (tenant, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX assignments_ended ON assignments (tenant, pipeline, revision, ended_millis);
