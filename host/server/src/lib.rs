//! The multi-tenant HTTP server.
//!
//! ```text
//!  connection ─► listener ─► auth ─► quota ─┬─ intake ─► admission ─► engine ─► commit notifier ─► events, webhooks
//!                                           ├─ jobs, documents, usage
//!                                           └─ search ─► search buffer ─► engine
//! ```
//!
//! | concern | content |
//! |---|---|
//! | listener, connections, TLS, write timeout | accepts and limits connections, closes those that are idle or do not read |
//! | authentication | API keys: the calling tenant and the scopes of the key |
//! | problem | every error response as problem+json |
//! | intake | job submissions: receives, hashes and stores files, then commits the job |
//! | outbound HTTP client | fetches documents and sends webhooks, to public addresses only |
//! | admission | selects the next job and limits the number of running jobs |
//! | quota, usage | quotas of a tenant and what it has used |
//! | uploads | counts bytes in flight against quotas and free disk space |
//! | jobs | shows, cancels, retries and diagnoses jobs |
//! | pipelines | components and revisions of a tenant, and the rollout of revisions to jobs |
//! | tenants | administration of tenants and keys |
//! | commit notifier | notifies subscribers of committed events |
//! | requests | tracing span, metrics, request id and panic handler of every request |
//! | metrics | metrics in the Prometheus format |
//! | OpenAPI | the API description, generated from the handlers |
//! | web page | the web page, the API reference, and a page for each problem type |
//! | events | streams committed events over SSE and WebSocket |
//! | webhooks | notifies a client's server that a job has ended |
//! | search | finds passages: one query, a batch, or a stream, all through the search buffer |
//! | documents | reads and deletes documents: facts, pages, images, lines, Markdown, summaries |
//! | signed links | links that work without a key until they expire |
//! | concurrency limit | limits the number of open streams |
//! | headers | security and caching headers of responses |
//! | health | liveness and readiness probes |
//!
//! A handler cannot see another tenant's data: the tenant comes from the key and is part of every call of a store, so the
//! id of another tenant's object is not found. A request takes no resource before it is counted against the tenant's quotas.

mod admission;
mod app;
mod auth;
mod commit_notifier;
mod connections;
mod documents;
mod events;
#[cfg(test)]
mod fakes;
mod health;
mod http_input;
mod intake;
mod jobs;
mod listener;
mod metrics;
mod openapi;
mod outbound_client;
mod pipelines;
mod problem;
mod public_addresses;
mod quota_limiter;
mod request_middleware;
mod search;
mod security_headers;
mod signed_links;
mod stored_response;
mod stream_limiter;
mod tenants;
mod tls;
mod upload_reservations;
mod usage;
mod web_page;
mod webhook;
mod write_timeout;

pub use app::{AppState, Server, ServerParts};
pub use auth::{GeneratedApiKey, KeyGenerationError, generate_api_key};
pub use commit_notifier::CommitNotifier;
pub use listener::{ListenError, Listener};
pub use metrics::install_metrics_recorder;
pub use pipelines::DefaultComponents;
pub use problem::Problem;
pub use signed_links::SigningKey;
pub use usage::UsageRecorder;
