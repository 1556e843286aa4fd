-- The decisions of shadow revisions, compared with those of the active revision.

CREATE TABLE shadow_runs (
    tenant    TEXT    NOT NULL,
    pipeline  TEXT    NOT NULL,
    job       TEXT    NOT NULL,
    revision  INTEGER NOT NULL,
    at_millis INTEGER NOT NULL,
    report    TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline, job)
) STRICT, WITHOUT ROWID;
