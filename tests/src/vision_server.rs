//! A fake vision model behind an OpenAI-compatible endpoint. It reads the size of each image and counts concurrent requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::http_server::{HttpResponse, start_http_server};
use crate::model_server::completion_response;

/// A received request.
#[derive(Debug, Clone)]
pub struct VisionRequest {
    /// The text that was sent with the image.
    pub prompt: String,
    /// The response limit, in tokens.
    pub max_tokens: u64,
    /// Width and height of the image, in pixels.
    pub image_size: (u32, u32),
}

/// The reply: a page's text, or an HTTP error status.
pub type VisionReply = Result<String, u16>;

type ReplyFn = dyn Fn(&VisionRequest) -> VisionReply + Send + Sync;

struct ServerState {
    reply: Box<ReplyFn>,
    requests: Mutex<Vec<VisionRequest>>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
}

/// A fake vision server. It listens until the test process ends.
pub struct VisionServer {
    address: SocketAddr,
    state: Arc<ServerState>,
}

impl VisionServer {
    /// Starts a server that answers each request with `script`.
    pub fn new(script: impl Fn(&VisionRequest) -> VisionReply + Send + Sync + 'static) -> Self {
        let seen = Arc::new(ServerState {
            reply: Box::new(script),
            requests: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
        });
        let shared_state = Arc::clone(&seen);
        let address = start_http_server(move |request| {
            shared_state.handle_request(&serde_json::from_slice(&request.body).unwrap())
        });
        Self { address, state: seen }
    }

    /// Returns command line arguments that configure this server as the provider `vision`, plus the settings in `more`.
    pub fn provider_arguments(&self, more: &[&str]) -> Vec<String> {
        let url = format!("llm.provider.vision.url=http://{}/v1", self.address);
        let own = [
            url.as_str(),
            "llm.provider.vision.model=sees",
            "llm.provider.vision.supports_images=true",
            "llm.provider.vision.max_concurrent_requests=8",
        ];
        let all = own.iter().chain(more);
        all.flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()])
            .collect()
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<VisionRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Returns the largest number of concurrent requests.
    pub fn max_in_flight(&self) -> usize {
        self.state.max_in_flight.load(Ordering::SeqCst)
    }
}

impl ServerState {
    fn handle_request(&self, body: &Value) -> HttpResponse {
        let request = parse_request(body);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_flight.fetch_max(now, Ordering::SeqCst);
        self.requests.lock().unwrap().push(request.clone());
        let reply = (self.reply)(&request);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        match reply {
            Ok(text) => completion_response(&text),
            Err(status) => HttpResponse::new(status, "no"),
        }
    }
}

fn parse_request(body: &Value) -> VisionRequest {
    assert_eq!(body["model"], "sees");
    let content = &body["messages"].as_array().unwrap().last().unwrap()["content"];
    let url = content[1]["image_url"]["url"].as_str().unwrap();
    let jpeg = STANDARD.decode(url.strip_prefix("data:image/jpeg;base64,").unwrap());
    VisionRequest {
        prompt: content[0]["text"].as_str().unwrap().to_owned(),
        max_tokens: body["max_tokens"].as_u64().unwrap(),
        image_size: jpeg_dimensions(&jpeg.unwrap()),
    }
}

/// Reads the width and height of a JPEG file from its frame header.
fn jpeg_dimensions(jpeg: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from(u16::from_be_bytes([jpeg[at], jpeg[at + 1]]));
    let mut at = 2;
    loop {
        assert_eq!(jpeg[at], 0xff, "a JPEG marker is expected");
        match jpeg[at + 1] {
            0xc0..=0xc2 => return (number(at + 7), number(at + 5)),
            _ => at += 2 + number(at + 2) as usize,
        }
    }
}
