-- Tenants' components, revisions and rollouts, and the metrics of each job of a revision.

CREATE TABLE components (
    tenant         TEXT    NOT NULL,
    digest         BLOB    NOT NULL, -- SHA-256 of the component's bytes
    name           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    interface      TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL,
    api_key_id     TEXT    NOT NULL, -- of the API key that pushed the component
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    tenant         TEXT    NOT NULL,
    pipeline       TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    spec           TEXT    NOT NULL, -- JSON
    created_millis INTEGER NOT NULL,
    api_key_id     TEXT    NOT NULL, -- of the API key that pushed the revision
    PRIMARY KEY (tenant, pipeline, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
    tenant   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    rollout  TEXT NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_log (
    tenant   TEXT    NOT NULL,
    pipeline TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    entry    TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline, seq)
) STRICT, WITHOUT ROWID;

-- The revision that each job uses, and the metrics of the job.
CREATE TABLE revision_assignments (
    tenant       TEXT    NOT NULL,
    job          TEXT    NOT NULL,
    pipeline     TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    is_canary    INTEGER NOT NULL,
    ended_millis INTEGER, -- NULL until the job has ended
    metrics      TEXT,    -- JSON
    PRIMARY KEY (tenant, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX revision_assignments_ended ON revision_assignments (tenant, pipeline, revision, ended_millis);
