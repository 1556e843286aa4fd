//! Services for tests, each on a free port of loopback: real servers from packages, each with a folder of its own that is removed at the
//! end, and servers on threads of the test. `deploy/setup test` installs the packages of the system.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a service that does not start stops the test"
)]

mod free_port;
mod postgres_server;
mod postgres_session;
mod redis_server;
mod round_robin;
mod seaweedfs_server;
mod server_process;
mod server_thread;

pub use free_port::find_free_port;
pub use postgres_server::PostgresServer;
pub use postgres_session::PostgresSession;
pub use redis_server::RedisServer;
pub use round_robin::RoundRobin;
pub use seaweedfs_server::SeaweedFsServer;
pub use server_thread::ServerThread;
