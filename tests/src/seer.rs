//! An endpoint with a vision model: speaks OpenAI's API over HTTP, looks at the images it is sent, and counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::listening::{Response, listen};
use crate::model::answered;

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Look {
    /// The text beside the image.
    pub prompt: String,
    /// Longest answer, in tokens.
    pub max_tokens: u64,
    /// Width and height of the image, in pixels.
    pub size: (u32, u32),
}

/// What it answers: a page's text, or a status that says it cannot.
pub type Said = Result<String, u16>;

type Script = dyn Fn(&Look) -> Said + Send + Sync;

struct Seen {
    script: Box<Script>,
    looks: Mutex<Vec<Look>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One that listens until the test ends.
pub struct Seer {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Seer {
    /// Answers as the script says.
    pub fn new(script: impl Fn(&Look) -> Said + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Seen {
            script: Box::new(script),
            looks: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let kept = Arc::clone(&seen);
        let address = listen(move |request| kept.answer(&serde_json::from_slice(&request.body).unwrap()));
        Self { address, seen }
    }

    /// Arguments that make it the provider `seer`, with these settings of the language models beside.
    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let url = format!("llm.provider.seer.url=http://{}/v1", self.address);
        let own = [
            url.as_str(),
            "llm.provider.seer.model=sees",
            "llm.provider.seer.vision=true",
            "llm.provider.seer.concurrency=8",
        ];
        let all = own.iter().chain(more);
        all.flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()])
            .collect()
    }

    /// All it was asked so far.
    pub fn looks(&self) -> Vec<Look> {
        self.seen.looks.lock().unwrap().clone()
    }

    /// Most questions that were before it at once.
    pub fn most(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }
}

impl Seen {
    fn answer(&self, asked: &Value) -> Response {
        let look = look(asked);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.looks.lock().unwrap().push(look.clone());
        let said = (self.script)(&look);
        self.now.fetch_sub(1, Ordering::SeqCst);
        match said {
            Ok(text) => answered(&text),
            Err(status) => Response::new(status, "no"),
        }
    }
}

fn look(asked: &Value) -> Look {
    assert_eq!(asked["model"], "sees");
    let content = &asked["messages"].as_array().unwrap().last().unwrap()["content"];
    let url = content[1]["image_url"]["url"].as_str().unwrap();
    let jpeg = STANDARD.decode(url.strip_prefix("data:image/jpeg;base64,").unwrap());
    Look {
        prompt: content[0]["text"].as_str().unwrap().to_owned(),
        max_tokens: asked["max_tokens"].as_u64().unwrap(),
        size: size(&jpeg.unwrap()),
    }
}

/// Width and height of a JPEG file, from the header of its frame.
fn size(jpeg: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from(u16::from_be_bytes([jpeg[at], jpeg[at + 1]]));
    let mut at = 2;
    loop {
        assert_eq!(jpeg[at], 0xff, "a marker");
        match jpeg[at + 1] {
            0xc0..=0xc2 => return (number(at + 7), number(at + 5)),
            _ => at += 2 + number(at + 2) as usize,
        }
    }
}
