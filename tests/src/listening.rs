//! A server for a test: takes HTTP requests, with a thread for each connection, until the test ends.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request as it came.
pub struct Request {
    pub method: String,
    /// With its query.
    pub target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}

/// What is answered.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Listens at a port of this machine and answers so.
pub fn listen(answer: impl Fn(Request) -> Response + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // One that goes away is no matter.
            std::thread::spawn(move || serve(&stream, &*answer));
        }
    });
    address
}

/// Requests of a connection, one after the other.
fn serve(stream: &TcpStream, answer: &(impl Fn(Request) -> Response + Sync)) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut stream = stream;
    while let Some(request) = request(&mut reader)? {
        let head = request.method == "HEAD";
        let response = answer(request);
        let mut said = format!("HTTP/1.1 {} -\r\n", response.status);
        for (name, value) in &response.headers {
            said += &format!("{name}: {value}\r\n");
        }
        said += &format!("content-length: {}\r\n\r\n", response.body.len());
        stream.write_all(said.as_bytes())?;
        if !head {
            stream.write_all(&response.body)?;
        }
    }
    Ok(())
}

fn request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
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
    let mut request = Request {
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
