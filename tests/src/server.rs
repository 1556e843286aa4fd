//! A `weir serve` process and HTTP clients for its API.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, SendBody};

use crate::{CommandOutput, WeirFixture, WeirProcess, assert_no_host_path, test_component_path};

/// A running `weir serve` process.
pub struct TestServer {
    process: WeirProcess,
    /// The address at which it listens.
    pub address: SocketAddr,
    /// The admin key, which only the first start in a data folder prints.
    admin_key: Option<String>,
}

impl TestServer {
    /// Starts a server and waits until it listens.
    pub fn start(weir: &WeirFixture, arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", weir, arguments)
    }

    /// Starts a server that listens at this address.
    pub fn start_at(address: &str, weir: &WeirFixture, arguments: &[&str]) -> Self {
        let mut all = vec!["serve", "--json", "--listen", address];
        all.extend(arguments);
        Self::wait_until_listening(WeirProcess::start(weir.weir_command(&all)))
    }

    /// Reads the address and admin key from the first line of output.
    fn wait_until_listening(mut running: WeirProcess) -> Self {
        let Some(first_line) = running.read_line() else {
            let ended = running.wait_for_exit();
            panic!("the server did not start: {}", ended.stderr);
        };
        let address = first_line["address"]
            .as_str()
            .expect("the first line has the address");
        Self {
            address: address.rsplit('/').next().unwrap().parse().unwrap(),
            admin_key: first_line["admin_key"].as_str().map(str::to_owned),
            process: running,
        }
    }

    /// Starts a server with this soft limit of open files.
    pub fn start_with_descriptor_limit(weir: &WeirFixture, soft: u32) -> Self {
        let wanted = weir.weir_command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -S -n {soft} && exec \"$0\" \"$@\""))
            .arg(wanted.get_program())
            .args(wanted.get_args())
            .current_dir(weir.folder());
        Self::wait_until_listening(WeirProcess::start(command))
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the admin key, which only the first start in a data folder or on an empty shared ledger prints.
    pub fn admin_key(&self) -> Option<&str> {
        self.admin_key.as_deref()
    }

    /// Returns a client with the admin key. Panics unless this was the first start in the data folder.
    pub fn admin_client(&self) -> ApiClient {
        self.client_with_key(
            self.admin_key
                .as_deref()
                .expect("only the first start in a data folder prints the admin key"),
        )
    }

    pub fn client_with_key(&self, key: &str) -> ApiClient {
        ApiClient::new(self.address, key)
    }

    /// Creates a tenant over HTTP and returns a client with the scopes `ingest` and `read`.
    pub fn create_tenant(&self, name: &str, more: Value) -> ApiClient {
        self.create_tenant_with_scopes(name, more, &["ingest", "read"])
    }

    /// Creates a tenant over HTTP and returns a client with these scopes.
    pub fn create_tenant_with_scopes(&self, name: &str, more: Value, scopes: &[&str]) -> ApiClient {
        self.client_with_key(&self.admin_client().create_tenant(name, more, scopes))
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn stop(self) -> CommandOutput {
        self.process.send_signal(rustix::process::Signal::TERM);
        self.process.wait_for_exit()
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(self) {
        self.process.send_signal(rustix::process::Signal::KILL);
        self.process.wait_for_exit();
    }
}

/// An HTTP client that authenticates with an API key.
#[derive(Clone)]
pub struct ApiClient {
    agent: Agent,
    base: String,
    key: String,
}

/// An HTTP response. A body that is not JSON becomes a JSON string.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl ApiResponse {
    fn read(response: Response<Body>) -> Self {
        let (parts, mut body) = response.into_parts();
        let text = body.read_to_string().unwrap_or_default();
        assert_no_host_path(&text);
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    /// Returns the last path segment of the problem type.
    pub fn problem_type(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default()
    }
}

impl ApiClient {
    /// Creates a client of the server at this address.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Self {
            agent: config.into(),
            base: format!("http://{address}"),
            key: key.to_owned(),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    fn send_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Response<Body> {
        self.try_send_request(method, path, headers, body)
            .expect("the server responds")
    }

    fn try_send_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(bytes) => self.agent.run(
                request
                    .body(SendBody::from_owned_reader(std::io::Cursor::new(bytes.to_vec())))
                    .unwrap(),
            ),
            None => self.agent.run(request.body(()).unwrap()),
        }
    }

    /// Creates a tenant as an administrator. Returns a key of the tenant with these scopes.
    pub fn create_tenant(&self, name: &str, more: Value, scopes: &[&str]) -> String {
        let mut wanted = json!({ "id": name });
        wanted
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let made = self.post("/v1/tenants", &wanted);
        assert_eq!(made.status, 201, "{}", made.body);
        let scopes = json!({ "scopes": scopes, "label": "test" });
        let key = self.post(&format!("/v1/tenants/{name}/keys"), &scopes);
        assert_eq!(key.status, 201, "{}", key.body);
        key.body["secret"]
            .as_str()
            .expect("the response has the key's secret")
            .to_owned()
    }

    pub fn get(&self, path: &str) -> ApiResponse {
        ApiResponse::read(self.send_request("GET", path, &[], None))
    }

    pub fn delete(&self, path: &str) -> ApiResponse {
        ApiResponse::read(self.send_request("DELETE", path, &[], None))
    }

    pub fn send_json(&self, method: &str, path: &str, body: &Value) -> ApiResponse {
        let bytes = body.to_string().into_bytes();
        ApiResponse::read(self.send_request(
            method,
            path,
            &[("content-type", "application/json")],
            Some(&bytes),
        ))
    }

    pub fn post(&self, path: &str, body: &Value) -> ApiResponse {
        self.send_json("POST", path, body)
    }

    /// Pushes a component.
    pub fn push_component(&self, name: &str, component: &[u8]) -> ApiResponse {
        let path = format!("/v1/components?name={name}");
        let kind = [("content-type", "application/wasm")];
        ApiResponse::read(self.send_request("POST", &path, &kind, Some(component)))
    }

    /// Pushes the pipeline `ours`, with the component `text-only` of the tests for routing, and activates it.
    pub fn push_and_activate_pipeline(&self) {
        let routing = std::fs::read(test_component_path("text-only")).unwrap();
        let pushed = self.push_component("ours", &routing);
        assert_eq!(pushed.status, 201, "{}", pushed.body);
        let new = json!({ "components": { "routing": "ours" } });
        let revision = self.post("/v1/pipelines/ours/revisions", &new);
        assert_eq!(revision.status, 201, "{}", revision.body);
        let activate = json!({ "action": "activate", "revision": 1 });
        let activated = self.post("/v1/pipelines/ours/rollout", &activate);
        assert_eq!(activated.status, 200, "{}", activated.body);
    }

    pub fn get_bytes(&self, path: &str) -> (u16, Vec<u8>) {
        let response = self.send_request("GET", path, &[], None);
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

    /// Returns the value of a metric series given by name and labels, or 0 if it has not been recorded.
    pub fn metric_value(&self, series: &str) -> f64 {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        let text = response.body.as_str().unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Submits files as one job, with options and additional headers.
    pub fn submit_files(
        &self,
        files: &[(&str, &[u8])],
        options: &Value,
        headers: &[(&str, &str)],
    ) -> ApiResponse {
        let (kind, body) = encode_multipart_form(files, options);
        let mut all = vec![("content-type", kind.as_str())];
        all.extend(headers);
        ApiResponse::read(self.send_request("POST", "/v1/jobs", &all, Some(&body)))
    }

    /// Submits one file and returns the job's id.
    pub fn submit_file(&self, name: &str, bytes: &[u8]) -> String {
        let response = self.submit_files(&[(name, bytes)], &json!({}), &[]);
        assert_eq!(response.status, 202, "{}", response.body);
        response.body["id"]
            .as_str()
            .expect("the response has the job's id")
            .to_owned()
    }

    /// Streams the events of a job with sequence numbers above `after`.
    pub fn follow_events(&self, job: &str, after: u64) -> EventStream {
        self.try_follow_events(job, after).expect("the server responds")
    }

    /// Streams the events of a job with sequence numbers above `after`. Fails if the server does not respond.
    pub fn try_follow_events(&self, job: &str, after: u64) -> Result<EventStream, ureq::Error> {
        let after = after.to_string();
        let response = self.try_send_request(
            "GET",
            &format!("/v1/jobs/{job}/events"),
            &[("accept", "text/event-stream"), ("last-event-id", &after)],
            None,
        )?;
        let status = response.status().as_u16();
        Ok(EventStream {
            status,
            lines: BufReader::new(Box::new(response.into_body().into_reader())),
        })
    }

    /// Waits for a job's end and returns its events.
    pub fn wait_for_job(&self, job: &str) -> Vec<Value> {
        let events: Vec<Value> = self.follow_events(job, 0).map(|(_, event)| event).collect();
        let last = events
            .last()
            .unwrap_or_else(|| panic!("the server sent no event of job {job}"));
        assert_eq!(last["type"], "job-ended", "{last}");
        events
    }
}

/// Encodes a multipart form. Returns its content type and body.
pub fn encode_multipart_form(files: &[(&str, &[u8])], options: &Value) -> (String, Vec<u8>) {
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

/// A stream of server-sent events. It yields the id and data of each.
pub struct EventStream {
    pub status: u16,
    lines: BufReader<Box<dyn std::io::Read + Send>>,
}

impl Iterator for EventStream {
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
                id = text
                    .trim()
                    .parse()
                    .unwrap_or_else(|_| panic!("invalid event id: {line}"));
            } else if let Some(text) = line.strip_prefix("data:") {
                assert_no_host_path(text);
                data.push_str(text.trim_start());
            } else if line.is_empty() && !data.is_empty() {
                let event =
                    serde_json::from_str(&data).unwrap_or_else(|_| panic!("event data is not JSON: {data}"));
                return Some((id, event));
            }
        }
    }
}
