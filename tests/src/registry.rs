//! An OCI registry in memory, as much of one as publishing and pulling take, that can be told what to answer instead of the truth.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use crate::listening::{Request, Response, listen};

/// What is answered to a GET of this path in the place of these bytes.
pub type Answer = fn(&str, Vec<u8>) -> Vec<u8>;

/// A registry in work, until the test ends.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Methods and paths as they came.
    asked: Arc<Mutex<Vec<String>>>,
}

type Kept = Mutex<HashMap<String, Vec<u8>>>;

impl Registry {
    /// Starts one that answers so.
    pub fn start(answer: Answer) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heard, kept) = (Arc::clone(&asked), Mutex::default());
        let address = listen(move |request| {
            heard
                .lock()
                .unwrap()
                .push(format!("{} {}", request.method, request.target));
            said(request, &kept, answer)
        });
        Self { address, asked }
    }

    /// How often it was asked for anything.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn said(request: Request, kept: &Kept, answer: Answer) -> Response {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    match &*request.method {
        "POST" => Response::new(202, "").with("location", format!("{path}1")),
        "PUT" => {
            // An upload is kept under the digest it is said to have.
            let blob = query
                .strip_prefix("digest=")
                .map(|digest| digest.replace("%3A", ":"));
            let place = match blob {
                Some(digest) => path.replace("uploads/1", &digest),
                None => path.to_owned(),
            };
            let mut kept = kept.lock().unwrap();
            if let Some((repository, _)) = path.split_once("/manifests/") {
                let digest = Sha256::digest(&request.body);
                let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                kept.insert(
                    format!("{repository}/manifests/sha256:{digits}"),
                    request.body.clone(),
                );
            }
            kept.insert(place, request.body);
            Response::new(201, "")
        }
        _ => match kept.lock().unwrap().get(path) {
            Some(bytes) => Response::new(200, answer(path, bytes.clone())),
            None => Response::new(404, ""),
        },
    }
}
