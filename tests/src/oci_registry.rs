//! An in-memory OCI registry for publishing and pulling, which can falsify the bytes it returns.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::http_server::{HttpRequest, HttpResponse, start_http_server};

/// Maps the path and stored bytes of a GET to the bytes that are returned.
pub type ResponseOverride = fn(&str, Vec<u8>) -> Vec<u8>;

/// A fake registry. It listens until the test process ends.
pub struct OciRegistry {
    /// The address at which it listens.
    pub address: SocketAddr,
    /// Methods and paths in order of arrival.
    requests: Arc<Mutex<Vec<String>>>,
}

type StoredContent = Mutex<HashMap<String, Vec<u8>>>;

impl OciRegistry {
    /// Starts a registry that passes each returned body through `response_override`.
    pub fn start(response_override: ResponseOverride) -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (recorded_requests, stored) = (Arc::clone(&requests), Mutex::default());
        let address = start_http_server(move |request| {
            recorded_requests
                .lock()
                .unwrap()
                .push(format!("{} {}", request.method, request.target));
            handle_request(request, &stored, response_override)
        });
        Self { address, requests }
    }

    /// Returns the number of requests so far.
    pub fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn handle_request(
    request: HttpRequest,
    stored: &StoredContent,
    response_override: ResponseOverride,
) -> HttpResponse {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    match &*request.method {
        "POST" => HttpResponse::new(202, "").with_header("location", format!("{path}1")),
        "PUT" => {
            // An upload is stored under the digest that the client names.
            let blob = query
                .strip_prefix("digest=")
                .map(|digest| digest.replace("%3A", ":"));
            let key = match blob {
                Some(digest) => path.replace("uploads/1", &digest),
                None => path.to_owned(),
            };
            let mut stored = stored.lock().unwrap();
            if let Some((repository, _)) = path.split_once("/manifests/") {
                let digits = HEXLOWER.encode(&Sha256::digest(&request.body));
                stored.insert(
                    format!("{repository}/manifests/sha256:{digits}"),
                    request.body.clone(),
                );
            }
            stored.insert(key, request.body);
            HttpResponse::new(201, "")
        }
        _ => match stored.lock().unwrap().get(path) {
            Some(bytes) => HttpResponse::new(200, response_override(path, bytes.clone())),
            None => HttpResponse::new(404, ""),
        },
    }
}
