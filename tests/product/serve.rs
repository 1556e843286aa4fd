//! Many tenants over HTTP: the real server, asked as its clients ask it.

mod events;
mod faults;
mod isolation;
mod jobs;
mod pipelines;
mod traces;
