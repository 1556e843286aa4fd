//! The multi-tenant HTTP server.
//!
//! ```text
//!  connection ─► listener ─► routes ─► auth ─┬─ intake, jobs, pipelines, tenants, usage ─► control
//!                                            ├─ events, documents
//!                                            └─ search ─► search buffer ─► engine
//! ```
//!
//! The server turns requests into calls of `weir-control` and its results and errors into responses. Which job runs when, what a tenant
//! may use and how pipelines are rolled out is decided there.
//!
//! | concern | content |
//! |---|---|
//! | listener, connections, TLS, write timeout | accepts and limits connections, closes those that are idle or do not read |
//! | server, routes, state | starts and stops the server, lists all routes, adds security and caching headers to responses, holds what the handlers share |
//! | authentication | API keys: the calling tenant and the scopes of the key |
//! | problem | every error response as problem+json |
//! | intake | job submissions: reads forms and JSON, and fetches documents from URLs |
//! | outbound HTTP client | fetches documents and sends webhooks, to public addresses only |
//! | jobs | shows, cancels, retries and diagnoses jobs |
//! | pipelines | components and revisions of a tenant, and the rollout of revisions to jobs |
//! | tenants | administration of tenants and keys |
//! | usage | what a tenant has used |
//! | request middleware | tracing span, metrics, request id and panic handler of every request |
//! | metrics | metrics in the Prometheus format |
//! | OpenAPI | the API description, generated from the handlers |
//! | web page | the web page, the API reference, and a page for each problem type |
//! | events | streams committed events over SSE and WebSocket |
//! | search | finds passages: one query, a batch, or a stream, all through the search buffer |
//! | documents | reads and deletes documents: facts, pages, images, lines, Markdown, summaries, also by signed links |
//! | stream limiter | limits the number of open streams |
//! | health, nodes | liveness and readiness probes, the list of nodes |
//!
//! A handler cannot see another tenant's data: the tenant comes from the key and is part of every call of a store, so the
//! id of another tenant's object is not found. A request takes no resource before it is counted against the tenant's quotas.

mod auth;
mod connections;
mod control_error_to_problem;
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
mod nodes;
mod openapi;
mod outbound_client;
mod pipelines;
mod problem;
mod public_addresses;
mod request_middleware;
mod routes;
mod search;
mod server;
mod signed_links;
mod state;
mod stored_bytes_response;
mod stream_limiter;
mod tenants;
mod tls;
mod usage;
mod web_page;
mod write_timeout;

pub use listener::Listener;
pub use metrics::install_metrics_recorder;
pub use nodes::NodeView;
pub use problem::Problem;
pub use server::Server;
pub use signed_links::SigningKey;
pub use tls::ListenerSetupError;
