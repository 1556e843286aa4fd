-- What the components of tenants' jobs said, and how they failed.

CREATE TABLE said (
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    entry  TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, job, seq)
) STRICT, WITHOUT ROWID;
