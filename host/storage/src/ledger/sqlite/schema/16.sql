-- The processes that share the ledger.
CREATE TABLE nodes (
    id                 TEXT    NOT NULL PRIMARY KEY,
    role               TEXT    NOT NULL,
    version            TEXT    NOT NULL,
    started_millis     INTEGER NOT NULL,
    renewed_millis     INTEGER NOT NULL,
    lease_until_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The calls to each language model provider that are in flight or have started within the window of its rate limits.
CREATE TABLE provider_calls (
    id             TEXT    NOT NULL PRIMARY KEY,
    provider       TEXT    NOT NULL,
    node           TEXT    NOT NULL,
    started_millis INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    in_flight      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX provider_calls_by_start ON provider_calls (provider, started_millis);

-- The nodes that wait to call a provider. A node that does not ask again in time has given up.
CREATE TABLE provider_call_waits (
    provider       TEXT    NOT NULL,
    node           TEXT    NOT NULL,
    since_millis   INTEGER NOT NULL,
    expires_millis INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    PRIMARY KEY (provider, node)
) STRICT, WITHOUT ROWID;
