-- Log lines and failures of the components of tenants' jobs.

CREATE TABLE component_log (
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    entry  TEXT    NOT NULL, -- JSON
    PRIMARY KEY (tenant, job, seq)
) STRICT, WITHOUT ROWID;
