//! Many tenants over HTTP.
//!
//! ```text
//!  connection ─► listen ─► auth ─► quota ─┬─ intake ─► admission ─► engine ─► hub ─► events, webhooks
//!                                         ├─ jobs, documents, usage
//!                                         └─ search ─► stream buffer ─► engine
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `listen`, `stalled` | connections: TLS, deadlines for headers, a bound on how many, an end that waits |
//! | `auth` | keys: who calls, and what the key allows |
//! | `problem` | every refusal and error as problem+json |
//! | `hub` | what has been committed, told to whoever follows |
//! | `requests` | what every request passes: a span, a measurement, an id, a net |
//! | `metrics` | what is measured, for Prometheus |
//! | `openapi` | the interface's description, made from the handlers |
//! | `page` | documents for people: the web page, the interface explained, kinds of problems |
//! | `events` | events as they are committed: SSE and WebSocket |
//! | `webhook` | the end of a job told to a client's server |
//! | `search` | passages: one query, several, or one as a stream, through the stream buffer |
//! | `documents` | facts, pages, images, lines, Markdown; deleting |
//! | `signed` | links that work without a key for a while |
//! | `places` | how many streams are open |
//! | `headers`, `stored` | what browsers may do with answers |
//! | `health` | whether the process lives and takes work |
//!
//! A handler never sees another tenant's data: the tenant comes from the key and goes into every call of a store, so a
//! foreign id is one that does not exist. Nothing is taken before it is counted against the tenant's quotas.

mod app;
mod auth;
mod documents;
mod events;
#[cfg(test)]
mod fakes;
mod headers;
mod health;
mod hub;
mod listen;
mod metrics;
mod openapi;
mod page;
mod places;
mod problem;
mod requests;
mod search;
mod signed;
mod stalled;
mod stored;
mod webhook;
mod wire;

pub use app::{App, PipelineError, Pipelines, Server, ServerParts};
pub use auth::{FreshKey, MintError, mint};
pub use hub::Announced;
pub use listen::{ListenError, Listener};
pub use metrics::measure;
pub use problem::Problem;
pub use signed::SigningKey;
