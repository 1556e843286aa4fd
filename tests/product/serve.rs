//! Many tenants over HTTP: the real server, asked as its clients ask it, and as they should not.

mod bodies;
mod canary;
mod connections;
mod disk;
mod erasure;
mod events;
mod headers;
mod holdings;
mod hostile;
mod isolation;
mod jobs;
mod killed;
mod labels;
mod logs;
mod paths;
mod pipelines;
mod providers;
mod quotas;
mod readers;
mod registry;
mod removal;
mod shadow;
mod targets;
mod traces;
