//! An in-memory S3 server that fails on request. It is for tests only.
//!
//! `s3s` implements the protocol: signatures, requests and errors as AWS defines them. The operations that weir uses are implemented over a
//! map in memory ([`objects`]), because S3 replaces an object in one step and a server over files does not. All other operations are
//! answered with `NotImplemented`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the server of a test stops the test"
)]

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use tokio::net::TcpListener;
use weir_test_services::ServerThread;

use crate::objects::MemoryObjects;

/// The access key that the server accepts.
pub const ACCESS_KEY: &str = "weir-test-key";
/// The secret of the access key.
pub const SECRET_KEY: &str = "weir-test-secret";
/// The bucket that exists.
pub const BUCKET: &str = "documents";

/// How the server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It answers 500 `InternalError`.
    InternalError,
    /// It answers 403 `RequestTimeTooSkewed`.
    WrongTime,
    /// It answers 503 `SlowDown`.
    SlowDown,
    /// It accepts requests and never answers.
    Hang,
    /// It performs each request after this time.
    Delay(Duration),
}

/// The state of the server, which tests change and read.
pub(crate) struct ServerState {
    pub(crate) objects: BTreeMap<String, StoredObject>,
    /// Parts of unfinished multipart uploads, by upload id and part number.
    pub(crate) uploads: BTreeMap<String, BTreeMap<i32, Bytes>>,
    pub(crate) next_upload: u64,
    /// Maximum number of keys in a listing.
    pub(crate) page_keys: usize,
    /// Whether conditions of writes are refused as not implemented, as older servers do.
    pub(crate) refuses_conditions: bool,
    fault: Option<Fault>,
    /// Only requests whose method and path contain this text fail.
    failing_text: String,
    /// The number of further requests that fail.
    failing_requests: u32,
    requests: Vec<String>,
}

/// An object with the encryption that its writer asked for, and the time of its write.
#[derive(Clone)]
pub(crate) struct StoredObject {
    pub(crate) bytes: Bytes,
    pub(crate) encryption: Option<String>,
    pub(crate) last_modified: SystemTime,
}

/// A running server. It stops when the value is dropped.
pub struct S3TestServer {
    thread: ServerThread,
    state: Arc<Mutex<ServerState>>,
}

impl S3TestServer {
    /// Starts a server with an empty bucket on a free port of the loopback interface, on a thread of its own.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(ServerState {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next_upload: 0,
            page_keys: 1000,
            refuses_conditions: false,
            fault: None,
            failing_text: String::new(),
            failing_requests: 0,
            requests: Vec::new(),
        }));
        let server_state = Arc::clone(&state);
        Self {
            thread: ServerThread::start(move |listener| {
                accept_connections(listener, Arc::clone(&server_state))
            }),
            state,
        }
    }

    /// Stops the server: connections are closed and refused. Its objects stay.
    pub fn stop(&mut self) {
        self.thread.stop();
    }

    /// Starts a stopped server at the same address, with its objects.
    pub fn start_again(&mut self) {
        self.thread.start_again();
    }

    /// The URL for the setting `storage.s3_endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.thread.address())
    }

    /// Lets every request fail, or with `None` succeed again.
    pub fn fail_with(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        (state.fault, state.failing_requests) = (fault, u32::MAX);
        state.failing_text.clear();
    }

    /// Lets the next `count` requests fail whose method and path contain `text`.
    pub fn fail_requests(&self, fault: Fault, text: &str, count: u32) {
        let mut state = self.state.lock();
        (state.fault, state.failing_requests) = (Some(fault), count);
        state.failing_text = text.to_owned();
    }

    /// Sets the maximum number of keys in a listing.
    pub fn set_page_keys(&self, keys: usize) {
        self.state.lock().page_keys = keys;
    }

    /// Lets the server refuse conditions of writes, as older servers do.
    pub fn refuse_conditions(&self) {
        self.state.lock().refuses_conditions = true;
    }

    /// Returns the keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().objects.keys().cloned().collect()
    }

    /// Returns the encryption that the writers of objects asked for, by key.
    pub fn encryption_by_key(&self) -> BTreeMap<String, Option<String>> {
        let state = self.state.lock();
        let encryption = |(key, object): (&String, &StoredObject)| (key.clone(), object.encryption.clone());
        state.objects.iter().map(encryption).collect()
    }

    /// Replaces the bytes of an object.
    pub fn replace_object(&self, key: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.objects.get_mut(key).unwrap().bytes = Bytes::copy_from_slice(bytes);
    }

    /// Stores an object that no request wrote.
    pub fn insert_object(&self, key: &str, bytes: &[u8]) {
        let object = StoredObject {
            bytes: Bytes::copy_from_slice(bytes),
            encryption: None,
            last_modified: SystemTime::now(),
        };
        self.state.lock().objects.insert(key.to_owned(), object);
    }

    /// Sets the times of all objects back.
    pub fn age_objects(&self, by: Duration) {
        for object in self.state.lock().objects.values_mut() {
            object.last_modified -= by;
        }
    }

    /// Returns the number of unfinished multipart uploads.
    pub fn unfinished_uploads(&self) -> usize {
        self.state.lock().uploads.len()
    }

    /// Returns the methods and paths of all requests since the last call, such as `GET /documents/key`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().requests)
    }
}

async fn accept_connections(listener: TcpListener, state: Arc<Mutex<ServerState>>) {
    let mut service = S3ServiceBuilder::new(MemoryObjects(Arc::clone(&state)));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (service, state) = (service.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(service.clone(), Arc::clone(&state), request));
            // The client has closed the connection.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

async fn answer(
    service: S3Service,
    state: Arc<Mutex<ServerState>>,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    let fault = {
        let mut state = state.lock();
        let line = format!("{} {}", request.method(), request.uri());
        let is_failing = state.failing_requests > 0 && line.contains(&state.failing_text);
        state.failing_requests -= u32::from(is_failing);
        state.requests.push(line);
        state.fault.filter(|_| is_failing)
    };
    let (status, code) = match fault {
        None => return hyper::service::Service::call(&service, request).await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            return hyper::service::Service::call(&service, request).await;
        }
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::InternalError) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Some(Fault::WrongTime) => (StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
        Some(Fault::SlowDown) => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
    };
    let body = format!("<Error><Code>{code}</Code><Message>the test lets requests fail</Message></Error>");
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() = status;
    Ok(response)
}
