-- Text is compared by its bytes (collation "C"), as in SQLite. The tables are described in the steps of SQLite's schema.

-- Work that one node does at a time, such as sending webhooks.
CREATE TABLE node_duties (
    duty               TEXT COLLATE "C" PRIMARY KEY,
    owner              TEXT   NOT NULL,
    lease_until_millis BIGINT NOT NULL
);

CREATE TABLE documents (
    tenant              TEXT COLLATE "C" NOT NULL,
    id                  TEXT COLLATE "C" NOT NULL,
    name                TEXT   NOT NULL,
    bytes               BIGINT NOT NULL,
    pages               BIGINT NOT NULL,
    title               TEXT,
    outline             TEXT   NOT NULL, -- JSON
    collection          TEXT   NOT NULL,
    created_millis      BIGINT NOT NULL,
    labels              TEXT   NOT NULL DEFAULT '[]', -- JSON
    requested_placement TEXT   NOT NULL DEFAULT '{}', -- JSON
    PRIMARY KEY (tenant, id)
);

CREATE INDEX documents_in_order ON documents (tenant, created_millis, id);

CREATE TABLE jobs (
    tenant         TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    pipeline       TEXT   NOT NULL,
    revision       TEXT   NOT NULL,
    state          TEXT   NOT NULL,
    created_millis BIGINT NOT NULL,
    owner          TEXT,   -- the node that runs the job, NULL while no node does
    epoch          BIGINT NOT NULL DEFAULT 0, -- the number of claims of the job
    lease_until_millis BIGINT,
    lost_claims    BIGINT NOT NULL DEFAULT 0,
    cancel_requested BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX jobs_claimed ON jobs (tenant) WHERE owner IS NOT NULL;
CREATE INDEX jobs_of_node ON jobs (owner) WHERE owner IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (created_millis, id) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_by_state ON jobs (tenant, state, id);

-- Rows are written in the order of `rowid`. A replaced row gets a new one, which is the highest.
CREATE TABLE pages (
    tenant   TEXT COLLATE "C" NOT NULL,
    document TEXT COLLATE "C" NOT NULL,
    page     BIGINT NOT NULL,
    revision TEXT COLLATE "C" NOT NULL,
    job      TEXT   NOT NULL,
    state    TEXT   NOT NULL, -- JSON
    rowid    BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (tenant, document, page, revision)
);

CREATE TABLE events (
    position BIGINT GENERATED ALWAYS AS IDENTITY,
    tenant   TEXT COLLATE "C" NOT NULL,
    job      TEXT COLLATE "C" NOT NULL,
    seq      BIGINT NOT NULL,
    event    TEXT   NOT NULL, -- JSON
    PRIMARY KEY (tenant, job, seq)
);

CREATE UNIQUE INDEX events_of_tenant ON events (tenant, position);

CREATE TABLE component_state (
    tenant   TEXT COLLATE "C" NOT NULL,
    pipeline TEXT COLLATE "C" NOT NULL,
    key      TEXT COLLATE "C" NOT NULL,
    value    BYTEA NOT NULL,
    PRIMARY KEY (tenant, pipeline, key)
);

CREATE TABLE tenants (
    id             TEXT COLLATE "C" PRIMARY KEY,
    state          TEXT   NOT NULL,
    weight         DOUBLE PRECISION NOT NULL,
    quotas         TEXT   NOT NULL, -- JSON
    created_millis BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id             TEXT COLLATE "C" PRIMARY KEY,
    tenant         TEXT COLLATE "C" NOT NULL,
    scopes         TEXT   NOT NULL, -- JSON
    secret_digest  BYTEA  NOT NULL, -- SHA-256
    label          TEXT   NOT NULL,
    created_millis BIGINT NOT NULL,
    expires_millis BIGINT,
    revoked_millis BIGINT
);

CREATE INDEX api_keys_of_tenant ON api_keys (tenant, created_millis, id);

CREATE TABLE job_requests (
    tenant           TEXT COLLATE "C" NOT NULL,
    job              TEXT COLLATE "C" NOT NULL,
    request          TEXT   NOT NULL, -- JSON
    webhook_attempts BIGINT,          -- NULL if no webhook has to be sent
    PRIMARY KEY (tenant, job)
);

CREATE INDEX job_requests_with_webhook ON job_requests (tenant, job) WHERE webhook_attempts IS NOT NULL;

CREATE TABLE idempotency_keys (
    tenant         TEXT COLLATE "C" NOT NULL,
    key            TEXT COLLATE "C" NOT NULL,
    request_digest BYTEA  NOT NULL, -- SHA-256
    job            TEXT   NOT NULL,
    created_millis BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_millis);

CREATE TABLE daily_usage (
    tenant            TEXT COLLATE "C" NOT NULL,
    day               BIGINT NOT NULL, -- since 1970
    requests          BIGINT NOT NULL,
    jobs              BIGINT NOT NULL,
    upload_bytes      BIGINT NOT NULL,
    pages             BIGINT NOT NULL,
    inference_micros  BIGINT NOT NULL,
    guest_micros      BIGINT NOT NULL,
    searches          BIGINT NOT NULL,
    refusals          BIGINT NOT NULL,
    llm_calls         BIGINT NOT NULL,
    llm_prompt_tokens BIGINT NOT NULL,
    llm_answer_tokens BIGINT NOT NULL,
    llm_cost_micros   BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
);

CREATE TABLE components (
    tenant         TEXT COLLATE "C" NOT NULL,
    digest         BYTEA  NOT NULL, -- SHA-256 of the component's bytes
    name           TEXT   NOT NULL,
    bytes          BIGINT NOT NULL,
    interface      TEXT   NOT NULL, -- JSON
    created_millis BIGINT NOT NULL,
    api_key_id     TEXT   NOT NULL, -- of the API key that pushed the component
    PRIMARY KEY (tenant, digest)
);

CREATE TABLE revisions (
    tenant         TEXT COLLATE "C" NOT NULL,
    pipeline       TEXT COLLATE "C" NOT NULL,
    number         BIGINT NOT NULL,
    spec           TEXT   NOT NULL, -- JSON
    created_millis BIGINT NOT NULL,
    api_key_id     TEXT   NOT NULL, -- of the API key that pushed the revision
    PRIMARY KEY (tenant, pipeline, number)
);

CREATE TABLE rollouts (
    tenant   TEXT COLLATE "C" NOT NULL,
    pipeline TEXT COLLATE "C" NOT NULL,
    rollout  TEXT NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline)
);

CREATE TABLE pipeline_audit_log (
    tenant   TEXT COLLATE "C" NOT NULL,
    pipeline TEXT COLLATE "C" NOT NULL,
    seq      BIGINT NOT NULL,
    entry    TEXT   NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline, seq)
);

CREATE TABLE revision_assignments (
    tenant       TEXT COLLATE "C" NOT NULL,
    job          TEXT COLLATE "C" NOT NULL,
    pipeline     TEXT COLLATE "C" NOT NULL,
    revision     BIGINT  NOT NULL,
    is_canary    BOOLEAN NOT NULL,
    ended_millis BIGINT, -- NULL until the job has ended
    metrics      TEXT,   -- JSON
    PRIMARY KEY (tenant, job)
);

CREATE INDEX revision_assignments_ended ON revision_assignments (tenant, pipeline, revision, ended_millis, job);

CREATE TABLE component_log (
    tenant TEXT COLLATE "C" NOT NULL,
    job    TEXT COLLATE "C" NOT NULL,
    seq    BIGINT NOT NULL,
    entry  TEXT   NOT NULL, -- JSON
    PRIMARY KEY (tenant, job, seq)
);

CREATE TABLE shadow_reports (
    tenant    TEXT COLLATE "C" NOT NULL,
    pipeline  TEXT COLLATE "C" NOT NULL,
    job       TEXT COLLATE "C" NOT NULL,
    revision  BIGINT NOT NULL,
    at_millis BIGINT NOT NULL,
    report    TEXT   NOT NULL, -- JSON
    PRIMARY KEY (tenant, pipeline, job)
);

CREATE TABLE job_documents (
    tenant   TEXT COLLATE "C" NOT NULL,
    document TEXT COLLATE "C" NOT NULL,
    job      TEXT COLLATE "C" NOT NULL,
    removed  BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (tenant, document, job)
);

CREATE INDEX job_documents_removed ON job_documents (tenant, job) WHERE removed;

CREATE TABLE unfinished_document_removals (
    tenant   TEXT COLLATE "C" NOT NULL,
    document TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, document)
);

CREATE TABLE stored_path_sizes (
    tenant      TEXT COLLATE "C" NOT NULL,
    path        TEXT COLLATE "C" NOT NULL,
    bytes       BIGINT  NOT NULL,
    is_changing BOOLEAN NOT NULL,
    PRIMARY KEY (tenant, path)
);

CREATE INDEX stored_path_sizes_changing ON stored_path_sizes (path) WHERE is_changing;

CREATE TABLE storage_usage (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    bytes  BIGINT NOT NULL
);

-- The sum of the paths of a tenant.
CREATE FUNCTION add_to_storage_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE storage_usage SET bytes = bytes - old.bytes WHERE tenant = old.tenant;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE storage_usage SET bytes = bytes + new.bytes - old.bytes WHERE tenant = new.tenant;
    ELSE
        INSERT INTO storage_usage (tenant, bytes) VALUES (new.tenant, new.bytes)
        ON CONFLICT (tenant) DO UPDATE SET bytes = storage_usage.bytes + new.bytes;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER stored_path_changed AFTER INSERT OR DELETE OR UPDATE OF bytes ON stored_path_sizes
    FOR EACH ROW EXECUTE FUNCTION add_to_storage_usage();
