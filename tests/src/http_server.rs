//! A minimal HTTP server for tests, with one thread for each connection. It runs until the test process ends.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A received HTTP request.
pub struct HttpRequest {
    pub method: String,
    /// The path and query.
    pub target: String,
    /// Names are in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}

/// An HTTP response to send.
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Starts a server on a free local port that responds to each request with the result of `respond`.
pub fn start_http_server(
    respond: impl Fn(HttpRequest) -> HttpResponse + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            // A connection that the client closes early is not an error.
            std::thread::spawn(move || serve_connection(&stream, &*respond));
        }
    });
    address
}

/// Answers the requests of a connection one after the other.
fn serve_connection(
    stream: &TcpStream,
    respond: &(impl Fn(HttpRequest) -> HttpResponse + Sync),
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader)? {
        let is_head_request = request.method == "HEAD";
        let response = respond(request);
        let mut header_text = format!("HTTP/1.1 {} -\r\n", response.status);
        for (name, value) in &response.headers {
            header_text += &format!("{name}: {value}\r\n");
        }
        header_text += &format!("content-length: {}\r\n\r\n", response.body.len());
        stream.write_all(header_text.as_bytes())?;
        if !is_head_request {
            stream.write_all(&response.body)?;
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<HttpRequest>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    let mut request = HttpRequest {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|value| value.parse().ok());
    request.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}
