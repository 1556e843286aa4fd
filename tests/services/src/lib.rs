//! Services for tests: real servers from the system's packages, each on a free port of loopback and with a folder of its own, which is
//! removed at the end. `deploy/setup test` installs the packages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a service that does not start stops the test"
)]

mod postgres_server;
mod redis_server;
mod server_process;

pub use postgres_server::PostgresServer;
pub use redis_server::RedisServer;
