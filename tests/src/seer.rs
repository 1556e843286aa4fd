//! An endpoint with a vision model: speaks OpenAI's API over HTTP, looks at the images it is sent, and counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            script: Box::new(script),
            looks: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&kept));
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
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

fn serve(stream: TcpStream, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let look = look(&serde_json::from_slice(&body).unwrap());
    let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most.fetch_max(now, Ordering::SeqCst);
    seen.looks.lock().unwrap().push(look.clone());
    let said = (seen.script)(&look);
    seen.now.fetch_sub(1, Ordering::SeqCst);
    let (status, body) = match said {
        Ok(text) => {
            let message = json!({ "role": "assistant", "content": text });
            let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
            (200, json!({ "choices": [choice] }))
        }
        Err(status) => (status, json!({ "error": { "message": "no" } })),
    };
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // Whoever has given up waiting is gone.
    let _ = { stream }.write_all(answer.as_bytes());
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
