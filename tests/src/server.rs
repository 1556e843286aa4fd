//! A `weir serve` in a data folder of its own, and clients that talk to it as real ones would.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, SendBody};

use crate::{Ended, Running, Weir, assert_no_host_path};

/// A server in work.
pub struct Server {
    running: Running,
    /// Where it listens.
    pub address: SocketAddr,
    /// The key of its first start; the same data folder keeps it.
    key: Option<String>,
}

impl Server {
    /// Starts one and waits until it listens.
    pub fn start(weir: &Weir, arguments: &[&str]) -> Self {
        let mut all = vec!["serve", "--json", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        Self::listening(Running::start(weir.command(&all)))
    }

    /// Waits until it listens.
    fn listening(mut running: Running) -> Self {
        let Some(said) = running.line() else {
            let ended = running.wait();
            panic!("the server did not start: {}", ended.errors);
        };
        let address = said["address"].as_str().expect("an address");
        Self {
            address: address.rsplit('/').next().unwrap().parse().unwrap(),
            key: said["admin_key"].as_str().map(str::to_owned),
            running,
        }
    }

    /// One whose soft limit of open files was lowered before it began.
    pub fn with_few_descriptors(weir: &Weir, soft: u32) -> Self {
        let wanted = weir.command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -S -n {soft} && exec \"$0\" \"$@\""))
            .arg(wanted.get_program())
            .args(wanted.get_args())
            .current_dir(weir.folder());
        Self::listening(Running::start(command))
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// A client with the admin key, which the first start of a data folder prints.
    pub fn admin(&self) -> Client {
        self.client(self.key.as_deref().expect("the first start of this data folder"))
    }

    pub fn client(&self, key: &str) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Client {
            agent: config.into(),
            base: format!("http://{}", self.address),
            key: key.to_owned(),
        }
    }

    /// Makes a tenant over the interface and gives a client for it.
    pub fn tenant(&self, name: &str, more: Value) -> Client {
        self.tenant_with(name, more, &["ingest", "read"])
    }

    /// The same with these scopes.
    pub fn tenant_with(&self, name: &str, more: Value, scopes: &[&str]) -> Client {
        let mut wanted = json!({ "id": name });
        wanted
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let admin = self.admin();
        let made = admin.post("/v1/tenants", &wanted);
        assert_eq!(made.status, 201, "{}", made.body);
        let scopes = json!({ "scopes": scopes, "label": "test" });
        let key = admin.post(&format!("/v1/tenants/{name}/keys"), &scopes);
        assert_eq!(key.status, 201, "{}", key.body);
        self.client(key.body["secret"].as_str().expect("the key's text"))
    }

    /// SIGTERM, and how it ended.
    pub fn stop(self) -> Ended {
        self.running.signal(rustix::process::Signal::TERM);
        self.running.wait()
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.running.signal(rustix::process::Signal::KILL);
        self.running.wait();
    }
}

/// Speaks for a key.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    key: String,
}

/// An answer; a body that is no JSON is a string.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    fn of(response: Response<Body>) -> Self {
        let (parts, mut body) = response.into_parts();
        let text = body.read_to_string().unwrap_or_default();
        assert_no_host_path(&text);
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    /// The last word of a problem's type.
    pub fn problem(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default()
    }
}

impl Client {
    pub fn key(&self) -> &str {
        &self.key
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Response<Body> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            Some(bytes) => self.agent.run(
                request
                    .body(SendBody::from_owned_reader(std::io::Cursor::new(bytes.to_vec())))
                    .unwrap(),
            ),
            None => self.agent.run(request.body(()).unwrap()),
        };
        sent.expect("an answer")
    }

    pub fn get(&self, path: &str) -> Answer {
        Answer::of(self.ask("GET", path, &[], None))
    }

    pub fn delete(&self, path: &str) -> Answer {
        Answer::of(self.ask("DELETE", path, &[], None))
    }

    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let bytes = body.to_string().into_bytes();
        Answer::of(self.ask(
            method,
            path,
            &[("content-type", "application/json")],
            Some(&bytes),
        ))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body)
    }

    /// Pushes a component.
    pub fn push(&self, name: &str, component: &[u8]) -> Answer {
        let path = format!("/v1/components?name={name}");
        let kind = [("content-type", "application/wasm")];
        Answer::of(self.ask("POST", &path, &kind, Some(component)))
    }

    pub fn bytes(&self, path: &str) -> (u16, Vec<u8>) {
        let response = self.ask("GET", path, &[], None);
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        response
            .into_body()
            .into_reader()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_no_host_path(&String::from_utf8_lossy(&bytes));
        (status, bytes)
    }

    /// A measurement of the host by name and labels; 0 if it has not been recorded.
    pub fn measured(&self, series: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = answer.body.as_str().unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Submits files with options and further headers.
    pub fn submit(&self, files: &[(&str, &[u8])], options: &Value, headers: &[(&str, &str)]) -> Answer {
        let (kind, body) = form(files, options);
        let mut all = vec![("content-type", kind.as_str())];
        all.extend(headers);
        Answer::of(self.ask("POST", "/v1/jobs", &all, Some(&body)))
    }

    /// Submits one file and gives the job's id.
    pub fn job(&self, name: &str, bytes: &[u8]) -> String {
        let answer = self.submit(&[(name, bytes)], &json!({}), &[]);
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["id"].as_str().expect("a job id").to_owned()
    }

    /// Events of a job after `after`, as they come, until the stream ends.
    pub fn events(&self, job: &str, after: u64) -> Events {
        let after = after.to_string();
        let response = self.ask(
            "GET",
            &format!("/v1/jobs/{job}/events"),
            &[("accept", "text/event-stream"), ("last-event-id", &after)],
            None,
        );
        let status = response.status().as_u16();
        Events {
            status,
            lines: BufReader::new(Box::new(response.into_body().into_reader())),
        }
    }

    /// Waits for a job's end and gives its events.
    pub fn wait(&self, job: &str) -> Vec<Value> {
        let events: Vec<Value> = self.events(job, 0).map(|(_, event)| event).collect();
        let last = events.last().unwrap_or_else(|| panic!("no event of {job}"));
        assert_eq!(last["type"], "job-ended", "{last}");
        events
    }
}

/// A multipart body: its content type and bytes.
pub fn form(files: &[(&str, &[u8])], options: &Value) -> (String, Vec<u8>) {
    let border = "weir-test-border";
    let mut body = Vec::new();
    let mut part = |head: &str, bytes: &[u8]| {
        body.extend_from_slice(format!("--{border}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    };
    let json = "content-disposition: form-data; name=\"options\"\r\ncontent-type: application/json";
    part(json, options.to_string().as_bytes());
    for (name, bytes) in files {
        let head = format!(
            "content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: application/pdf"
        );
        part(&head, bytes);
    }
    body.extend_from_slice(format!("--{border}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={border}"), body)
}

/// Server-sent events with their ids.
pub struct Events {
    pub status: u16,
    lines: BufReader<Box<dyn std::io::Read + Send>>,
}

impl Iterator for Events {
    type Item = (u64, Value);

    fn next(&mut self) -> Option<(u64, Value)> {
        let (mut id, mut data) = (0, String::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(text) = line.strip_prefix("id:") {
                id = text.trim().parse().unwrap_or_else(|_| panic!("an id: {line}"));
            } else if let Some(text) = line.strip_prefix("data:") {
                assert_no_host_path(text);
                data.push_str(text.trim_start());
            } else if line.is_empty() && !data.is_empty() {
                let event = serde_json::from_str(&data).unwrap_or_else(|_| panic!("JSON: {data}"));
                return Some((id, event));
            }
        }
    }
}
