//! Many tenants over HTTP: the real server, asked as its clients ask it, and as they should not.

mod bodies;
mod canary;
mod disk;
mod events;
mod headers;
mod holdings;
mod isolation;
mod jobs;
mod killed;
mod pipelines;
mod readers;
mod registry;
mod traces;
