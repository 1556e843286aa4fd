-- A ledger of schema version 11, before its tables and columns were renamed, with rows as that version wrote them.

CREATE TABLE documents (
    tenant         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    pages          INTEGER NOT NULL,
    title          TEXT,
    outline        TEXT    NOT NULL,
    collection     TEXT    NOT NULL,
    created_millis INTEGER NOT NULL, labels TEXT NOT NULL DEFAULT '[]', requested TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, id)
) STRICT;

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
    state    TEXT    NOT NULL,
    PRIMARY KEY (tenant, document, page, revision)
) STRICT;

CREATE TABLE policy_state (
    tenant   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    BLOB NOT NULL,
    PRIMARY KEY (tenant, pipeline, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    place  INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    event  TEXT    NOT NULL,
    UNIQUE (tenant, job, seq)
) STRICT;

CREATE INDEX events_of_tenant ON events (tenant);

CREATE INDEX jobs_by_state ON jobs (tenant, state, id);

CREATE TABLE tenants (
    id             TEXT    NOT NULL PRIMARY KEY,
    state          TEXT    NOT NULL,
    weight         REAL    NOT NULL,
    quotas         TEXT    NOT NULL,
    created_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    tenant         TEXT    NOT NULL,
    scopes         TEXT    NOT NULL,
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
    body          TEXT    NOT NULL,
    webhook_tries INTEGER,
    PRIMARY KEY (tenant, job)
) STRICT;

CREATE INDEX orders_with_webhook ON orders (tenant, job) WHERE webhook_tries IS NOT NULL;

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
    refusals         INTEGER NOT NULL, llm_calls INTEGER NOT NULL DEFAULT 0, llm_prompt_tokens INTEGER NOT NULL DEFAULT 0, llm_answer_tokens INTEGER NOT NULL DEFAULT 0, llm_cost_micros INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE kept (
    tenant TEXT    NOT NULL PRIMARY KEY,
    bytes  INTEGER NOT NULL,
    exact  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE components (
    tenant         TEXT    NOT NULL,
    digest         BLOB    NOT NULL,
    name           TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    facts          TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    tenant         TEXT    NOT NULL,
    pipeline       TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    recipe         TEXT    NOT NULL,
    created_millis INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    PRIMARY KEY (tenant, pipeline, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
    tenant   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    rollout  TEXT NOT NULL,
    PRIMARY KEY (tenant, pipeline)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    tenant   TEXT    NOT NULL,
    pipeline TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    entry    TEXT    NOT NULL,
    PRIMARY KEY (tenant, pipeline, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE assignments (
    tenant       TEXT    NOT NULL,
    job          TEXT    NOT NULL,
    pipeline     TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    canary       INTEGER NOT NULL,
    ended_millis INTEGER,
    showing      TEXT,
    PRIMARY KEY (tenant, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX assignments_ended ON assignments (tenant, pipeline, revision, ended_millis);

CREATE TABLE said (
    tenant TEXT    NOT NULL,
    job    TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    entry  TEXT    NOT NULL,
    PRIMARY KEY (tenant, job, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE shadow_runs (
    tenant    TEXT    NOT NULL,
    pipeline  TEXT    NOT NULL,
    job       TEXT    NOT NULL,
    revision  INTEGER NOT NULL,
    at_millis INTEGER NOT NULL,
    report    TEXT    NOT NULL,
    PRIMARY KEY (tenant, pipeline, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_documents (
    tenant   TEXT NOT NULL,
    document TEXT NOT NULL,
    job      TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, document, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE removals (
    tenant   TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (tenant, document)
) STRICT, WITHOUT ROWID;

CREATE INDEX documents_in_order ON documents (tenant, created_millis, id);

CREATE INDEX job_documents_removed ON job_documents (tenant, job) WHERE removed;

INSERT INTO tenants (id, state, weight, quotas, created_millis) VALUES
    ('a', 'active', 1.5, '{"concurrent_jobs":3}', 1);
INSERT INTO keys (id, tenant, scopes, digest, label, created_millis, expires_millis, revoked_millis) VALUES
    ('key-a', 'a', '["ingest","read"]', x'0707070707070707070707070707070707070707070707070707070707070707', 'a key', 1, 99, NULL);
INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, created_millis, labels, requested) VALUES
    ('a', '18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4', 'd.pdf', 3, 10, NULL, '[]', 'main', 1, '[["team","north"]]', '{}');
INSERT INTO jobs (tenant, id, pipeline, revision, state, created_millis) VALUES
    ('a', '01a2240a-3851-70d2-8967-03a027a0aa3a', 'default', '454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1', 'running', 1);
INSERT INTO jobs (tenant, id, pipeline, revision, state, created_millis) VALUES
    ('a', '01a2240a-3857-701b-bdce-03d41e6a5373', 'default', '454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1', 'done', 2);
INSERT INTO pages (tenant, document, page, revision, job, state) VALUES
    ('a', '18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4', 1, '454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1', '01a2240a-3851-70d2-8967-03a027a0aa3a', '{"state":"done","source":"text-layer","passages":1,"image":null,"text":null}');
INSERT INTO events (place, tenant, job, seq, event) VALUES
    (7, 'a', '01a2240a-3851-70d2-8967-03a027a0aa3a', 1, '{"seq":1,"job":"01a2240a-3851-70d2-8967-03a027a0aa3a","document":null,"at_millis":10,"type":"page-done","page":1,"searchable":true,"passages":2}');
INSERT INTO events (place, tenant, job, seq, event) VALUES
    (8, 'a', '01a2240a-3851-70d2-8967-03a027a0aa3a', 2, '{"seq":2,"job":"01a2240a-3851-70d2-8967-03a027a0aa3a","document":null,"at_millis":20,"type":"page-done","page":1,"searchable":true,"passages":2}');
INSERT INTO policy_state (tenant, pipeline, key, value) VALUES
    ('a', 'p', 'k', x'76');
INSERT INTO orders (tenant, job, body, webhook_tries) VALUES
    ('a', '01a2240a-3851-70d2-8967-03a027a0aa3a', '{"job":"01a2240a-3851-70d2-8967-03a027a0aa3a","tenant":"a","lane":null,"files":[{"name":"a.pdf","document":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","bytes":5,"password":"swordfish"}],"options":{"pages":[2,9],"force":false},"webhook":null,"trace":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}', NULL);
INSERT INTO orders (tenant, job, body, webhook_tries) VALUES
    ('a', '01a2240a-3857-701b-bdce-03d41e6a5373', '{"job":"01a2240a-3857-701b-bdce-03d41e6a5373","tenant":"a","lane":null,"files":[{"name":"a.pdf","document":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","bytes":5}],"options":{"pages":[2,9],"force":false},"webhook":{"url":"https://example.org/hook","secret":"s"},"trace":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}', 3);
INSERT INTO words (tenant, word, digest, job, created_millis) VALUES
    ('a', 'w', x'0101010101010101010101010101010101010101010101010101010101010101', '01a2240a-3851-70d2-8967-03a027a0aa3a', 1);
INSERT INTO usage (tenant, day, requests, jobs, upload_bytes, pages, inference_micros, guest_micros, searches, refusals, llm_calls, llm_prompt_tokens, llm_answer_tokens, llm_cost_micros) VALUES
    ('a', 7, 0, 0, 0, 3, 0, 0, 0, 0, 9, 10, 11, 12);
INSERT INTO kept (tenant, bytes, exact) VALUES
    ('a', 10, 1);
INSERT INTO components (tenant, digest, name, bytes, facts, created_millis, key) VALUES
    ('a', x'336154bf67f765f8f75d16a0accee61b5ee5f6a75b2a2905703df913bd550f3e', 'ours', 4, '{"roles":["routing"],"capabilities":[]}', 1, 'key');
INSERT INTO revisions (tenant, pipeline, number, recipe, created_millis, key) VALUES
    ('a', 'p', 1, '{"manifest":{"name":"default","on-trap":"fail","components":{},"settings":{},"capabilities":{"grant":[]},"limits":{"call-millis":null,"memory-bytes":null},"judge":{"automatic":true,"jobs":20,"slower":0.1,"failures":0.05,"timeouts":0.1,"traps":0.02,"skipped":0.02}},"components":{"routing":"sha256:336154bf67f765f8f75d16a0accee61b5ee5f6a75b2a2905703df913bd550f3e"}}', 1, 'key');
INSERT INTO rollouts (tenant, pipeline, rollout) VALUES
    ('a', 'p', '{"stable":1,"canary":null,"shadow":null,"previous":null,"pinned":false,"version":1}');
INSERT INTO history (tenant, pipeline, seq, entry) VALUES
    ('a', 'p', 1, '{"seq":1,"at_millis":1,"by":"key","what":{"pushed":{"revision":1}}}');
INSERT INTO history (tenant, pipeline, seq, entry) VALUES
    ('a', 'p', 2, '{"seq":2,"at_millis":1,"by":"key","what":{"changed":{"change":{"action":"activate","revision":1},"from":{"stable":null,"canary":null,"shadow":null,"previous":null,"pinned":false,"version":0},"to":{"stable":1,"canary":null,"shadow":null,"previous":null,"pinned":false,"version":1}}}}');
INSERT INTO history (tenant, pipeline, seq, entry) VALUES
    ('a', 'p', 3, '{"seq":3,"at_millis":1,"by":"judge","what":{"changed":{"change":{"action":"promote"},"from":{"stable":1,"canary":{"revision":2,"percent":50,"since_millis":1},"shadow":null,"previous":null,"pinned":false,"version":2},"to":{"stable":2,"canary":null,"shadow":null,"previous":1,"pinned":false,"version":3}}},"evidence":{"canary":{"jobs":20,"failed_jobs":0,"pages":200,"failed_pages":0,"calls":600,"traps":0,"timeouts":0,"millis":18000},"stable":{"jobs":22,"failed_jobs":0,"pages":220,"failed_pages":0,"calls":660,"traps":0,"timeouts":0,"millis":19800},"reason":"nothing was worse"}}');
INSERT INTO assignments (tenant, job, pipeline, revision, canary, ended_millis, showing) VALUES
    ('a', '01a2240a-3857-701b-bdce-03d41e6a5373', 'p', 1, 1, 40, '{"jobs":1,"failed_jobs":0,"pages":10,"failed_pages":2,"calls":30,"traps":0,"timeouts":0,"millis":900}');
INSERT INTO said (tenant, job, seq, entry) VALUES
    ('a', '01a2240a-3857-701b-bdce-03d41e6a5373', 1, '{"job":"01a2240a-3857-701b-bdce-03d41e6a5373","seq":1,"at_millis":0,"component":"c","function":"routing.page","type":"line","level":"info","message":"here"}');
INSERT INTO shadow_runs (tenant, pipeline, job, revision, at_millis, report) VALUES
    ('a', 'p', '01a2240a-3857-701b-bdce-03d41e6a5373', 1, 1, '{"Err":"gone"}');
INSERT INTO job_documents (tenant, document, job, removed) VALUES
    ('a', 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb', '01a2240a-3851-70d2-8967-03a027a0aa3a', 0);
INSERT INTO job_documents (tenant, document, job, removed) VALUES
    ('a', '18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4', '01a2240a-3857-701b-bdce-03d41e6a5373', 1);
INSERT INTO removals (tenant, document) VALUES
    ('a', '18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4');

PRAGMA user_version = 11;
