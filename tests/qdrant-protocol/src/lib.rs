//! An in-memory server for the part of Qdrant's gRPC protocol that weir uses. It is for tests only and is not Qdrant.
//!
//! No package registry has a Qdrant server. This server implements the messages of the published protocol that weir's adapter sends,
//! over an exact search in memory ([`collection`]). It answers all other calls with `UNIMPLEMENTED`. Nothing is written to the disk.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the server of a test stops the test"
)]

mod collection;
mod filter;
mod services;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Status};
use weir_test_services::ServerThread;

use crate::collection::Collection;
use crate::services::Services;

/// Collections, and how the server answers.
#[derive(Default)]
pub(crate) struct ServerState {
    pub(crate) collections: HashMap<String, Collection>,
    /// While set, every call fails with this code.
    failure: Option<Code>,
    /// The API key that calls must have, if any.
    required_api_key: Option<String>,
}

/// A running server. It stops when the value is dropped.
pub struct QdrantProtocolServer {
    thread: ServerThread,
    state: Arc<Mutex<ServerState>>,
}

impl QdrantProtocolServer {
    /// Starts a server on a free port of the loopback interface, on a thread of its own.
    pub fn start() -> Self {
        let state = Arc::<Mutex<ServerState>>::default();
        let services_state = Arc::clone(&state);
        Self {
            thread: ServerThread::start(move |listener| accept_calls(listener, Arc::clone(&services_state))),
            state,
        }
    }

    /// Stops the server: connections are closed and refused. Its points stay.
    pub fn stop(&mut self) {
        self.thread.stop();
    }

    /// Starts a stopped server at the same address, with its points.
    pub fn start_again(&mut self) {
        self.thread.start_again();
    }

    /// The URL for the setting `storage.vectors`.
    pub fn url(&self) -> String {
        format!("http://{}", self.thread.address())
    }

    /// Lets every call fail with this code, or with `None` succeed again.
    pub fn fail_with(&self, code: Option<Code>) {
        self.state.lock().failure = code;
    }

    /// Lets calls without this API key fail.
    pub fn require_api_key(&self, key: &str) {
        self.state.lock().required_api_key = Some(key.to_owned());
    }

    /// Returns the names of the collections, sorted, each with its number of points and its replication factor.
    pub fn collections(&self) -> Vec<(String, usize, u32)> {
        let state = self.state.lock();
        let mut collections: Vec<_> = state
            .collections
            .iter()
            .map(|(name, collection)| (name.clone(), collection.len(), collection.replication_factor()))
            .collect();
        collections.sort();
        collections
    }
}

async fn accept_calls(listener: TcpListener, state: Arc<Mutex<ServerState>>) {
    let interceptor_state = Arc::clone(&state);
    let intercept = move |request: tonic::Request<()>| check_call(&interceptor_state, request);
    let services = Services { state };
    Server::builder()
        .add_service(CollectionsServer::with_interceptor(
            services.clone(),
            intercept.clone(),
        ))
        .add_service(PointsServer::with_interceptor(services, intercept))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

fn check_call(state: &Mutex<ServerState>, request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    let state = state.lock();
    if let Some(code) = state.failure {
        return Err(Status::new(code, "the test lets every call fail"));
    }
    let key = request
        .metadata()
        .get("api-key")
        .and_then(|key| key.to_str().ok());
    match &state.required_api_key {
        Some(required) if key != Some(required) => Err(Status::unauthenticated("Must provide an API key")),
        _ => Ok(request),
    }
}
