-- The processes that share the database.
CREATE TABLE nodes (
    id                 TEXT COLLATE "C" PRIMARY KEY,
    role               TEXT   NOT NULL,
    version            TEXT   NOT NULL,
    started_millis     BIGINT NOT NULL,
    renewed_millis     BIGINT NOT NULL,
    lease_until_millis BIGINT NOT NULL
);

-- The calls to each language model provider that are in flight or have started within the window of its rate limits.
CREATE TABLE provider_calls (
    id             TEXT COLLATE "C" PRIMARY KEY,
    provider       TEXT COLLATE "C" NOT NULL,
    node           TEXT COLLATE "C" NOT NULL,
    started_millis BIGINT  NOT NULL,
    tokens         BIGINT  NOT NULL,
    in_flight      BOOLEAN NOT NULL
);

CREATE INDEX provider_calls_by_start ON provider_calls (provider, started_millis);

-- The nodes that wait to call a provider. A node that does not ask again in time has given up.
CREATE TABLE provider_call_waits (
    provider       TEXT COLLATE "C" NOT NULL,
    node           TEXT COLLATE "C" NOT NULL,
    since_millis   BIGINT NOT NULL,
    expires_millis BIGINT NOT NULL,
    tokens         BIGINT NOT NULL,
    PRIMARY KEY (provider, node)
);
