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
//! | `listen`, `connections`, `tls`, `stalled` | connections: TLS, deadlines, bounds on how many there are and which are closed to make room |
//! | `auth` | keys: who calls, and what the key allows |
//! | `problem` | every refusal and error as problem+json |
//! | `intake` | submissions: files to disk, hashed on the way, then the job is written down |
//! | `addresses`, `outbound` | URLs of clients: only public addresses are reached |
//! | `admission` | whose job is next, and how many run |
//! | `quota`, `usage` | what a tenant may use, and what it has used |
//! | `uploads` | bytes on their way to the disk, counted against quota and free space |
//! | `jobs` | jobs looked at, cancelled, tried again, diagnosed |
//! | `pipelines` | tenants' components and revisions, and which jobs get which |
//! | `tenants` | tenants and keys, for whoever runs the host |
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

mod addresses;
mod admission;
mod app;
mod auth;
mod connections;
mod documents;
mod events;
#[cfg(test)]
mod fakes;
mod headers;
mod health;
mod hub;
mod intake;
mod jobs;
mod listen;
mod metrics;
mod openapi;
mod outbound;
mod page;
mod pipelines;
mod places;
mod problem;
mod quota;
mod requests;
mod search;
mod signed;
mod stalled;
mod stored;
mod tenants;
mod tls;
mod uploads;
mod usage;
mod webhook;
mod wire;

pub use app::{App, Server, ServerParts};
pub use auth::{FreshKey, MintError, mint};
pub use hub::Announced;
pub use listen::{ListenError, Listener};
pub use metrics::measure;
pub use pipelines::Defaults;
pub use problem::Problem;
pub use signed::SigningKey;
pub use usage::Metering;
