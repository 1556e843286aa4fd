//! An OCI registry in memory, as much of one as publishing and pulling take, that can be told what to answer instead of the truth.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

/// What is answered to a GET of this path in the place of these bytes.
pub type Answer = fn(&str, Vec<u8>) -> Vec<u8>;

/// A registry in work, until the test ends.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Methods and paths as they came.
    asked: Arc<Mutex<Vec<String>>>,
}

type Kept = Arc<Mutex<HashMap<String, Vec<u8>>>>;

impl Registry {
    /// Starts one that answers so.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let (asked, kept) = (Arc::clone(&registry.asked), Kept::default());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, kept) = (Arc::clone(&asked), Arc::clone(&kept));
                // One that goes away is no matter.
                std::thread::spawn(move || serve(stream, &asked, &kept, answer));
            }
        });
        registry
    }

    /// How often it was asked for anything.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<String>>, kept: &Kept, answer: Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    asked.lock().unwrap().push(format!("{method} {target}"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (status, location, body) = match method {
        "POST" => ("202 Accepted", format!("{path}1"), Vec::new()),
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
                let digest = Sha256::digest(&body);
                let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                kept.insert(format!("{repository}/manifests/sha256:{digits}"), body.clone());
            }
            kept.insert(place, body);
            ("201 Created", String::new(), Vec::new())
        }
        _ => match kept.lock().unwrap().get(path) {
            Some(bytes) => ("200 OK", String::new(), answer(path, bytes.clone())),
            None => ("404 Not Found", String::new(), Vec::new()),
        },
    };
    let mut stream = stream;
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\nlocation: {location}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    Some(())
}
