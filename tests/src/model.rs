//! A language model at an endpoint that speaks OpenAI's API, answers as it is told to, and remembers who asked what.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::listening::{Request, Response, listen};

/// What is answered to a question.
pub enum Said {
    /// This text, after a while.
    Text(Duration, String),
    /// A status and what goes with it.
    Refusal(u16, String),
}

/// A question that came, when, and when it was answered.
#[derive(Debug, Clone)]
pub struct Asked {
    pub text: String,
    pub authorization: Option<String>,
    pub at: Instant,
    pub answered: Option<Instant>,
}

/// One that listens until the test ends.
pub struct Model {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Model {
    /// Answers each question by its text.
    pub fn start(answer: impl Fn(&str) -> Said + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let address = listen(move |request| said(&request, &seen, &answer));
        Self {
            url: format!("http://{address}/v1"),
            asked,
        }
    }

    /// What was asked so far, in the order in which it came.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A `weir.toml` with this model and `more` of its settings, and `other` settings before.
    pub fn settings(&self, other: &str, more: &str) -> String {
        format!(
            "{other}\n[[llm.provider]]\nname = \"model\"\nurl = \"{}\"\nmodel = \"test\"\nstream = false\n{more}\n",
            self.url
        )
    }
}

fn said(request: &Request, seen: &Mutex<Vec<Asked>>, answer: &impl Fn(&str) -> Said) -> Response {
    assert_eq!(
        (&*request.method, &*request.target),
        ("POST", "/v1/chat/completions")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let message = body["messages"].as_array().unwrap().last().unwrap();
    let text = message["content"].as_str().unwrap().to_owned();
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push(Asked {
            text: text.clone(),
            authorization: request.header("authorization").map(str::to_owned),
            at: Instant::now(),
            answered: None,
        });
        seen.len() - 1
    };
    let response = match answer(&text) {
        Said::Text(after, text) => {
            std::thread::sleep(after);
            answered(&text)
        }
        Said::Refusal(status, body) => Response::new(status, body),
    };
    seen.lock().unwrap()[place].answered = Some(Instant::now());
    response
}

/// An answer that is whole.
pub(crate) fn answered(text: &str) -> Response {
    let said = json!({
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 7 },
    });
    Response::new(200, said.to_string()).with("content-type", "application/json")
}
