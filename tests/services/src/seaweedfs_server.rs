//! SeaweedFS, an S3 server that others wrote, from its Python package.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::free_port::find_free_port;
use crate::server_process::ServerProcess;

/// The gRPC port of each part of the server is its HTTP port plus this.
const GRPC_OFFSET: u16 = 10_000;

/// A SeaweedFS server with an empty bucket.
pub struct SeaweedFsServer {
    s3_port: u16,
    /// Its own shutdown takes half a minute, and the data is thrown away: it is killed.
    _process: ServerProcess,
    _folder: TempDir,
}

impl SeaweedFsServer {
    /// The access key that the server accepts.
    pub const ACCESS_KEY: &str = "weir-test-key";
    /// The secret of the access key.
    pub const SECRET_KEY: &str = "weir-test-secret";
    /// The bucket that exists.
    pub const BUCKET: &str = "documents";

    /// Starts a server. Panics if `tests/seaweedfs/install` has not installed it.
    #[must_use]
    pub fn start() -> Self {
        let program = find_program();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let identities = format!(
            r#"{{"identities": [{{"name": "weir", "actions": ["Admin", "Read", "List", "Write"],
                "credentials": [{{"accessKey": "{}", "secretKey": "{}"}}]}}]}}"#,
            Self::ACCESS_KEY,
            Self::SECRET_KEY
        );
        std::fs::write(folder.path().join("s3.json"), identities).unwrap();
        let log = folder.path().join("log");
        let output = File::create(&log).unwrap();
        let [master, volume, filer, s3] = find_ports();
        let mut process = ServerProcess::start(
            Command::new(&program)
                .args(["server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
                .arg(format!("-master.port={master}"))
                .arg(format!("-volume.port={volume}"))
                .arg(format!("-filer.port={filer}"))
                .args(["-volume.max=8", "-master.volumeSizeLimitMB=64", "-s3"])
                .arg(format!("-s3.port={s3}"))
                .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.config=s3.json"])
                .current_dir(folder.path())
                .stdout(output.try_clone().unwrap())
                .stderr(output),
        );
        process.wait_until_ready(&log, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, s3)).is_ok() && create_bucket(&program, master)
        });
        Self {
            s3_port: s3,
            _process: process,
            _folder: folder,
        }
    }

    /// Returns the URL for the setting `storage.s3_endpoint`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }
}

fn find_program() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/seaweedfs-venv");
    let environment = std::env::var_os("WEIR_SEAWEEDFS_VENV").map_or(default, PathBuf::from);
    let program = environment.join("bin/weed");
    assert!(
        program.exists(),
        "{} does not exist: run tests/seaweedfs/install",
        program.display()
    );
    program
}

/// Returns ports that are free, and whose gRPC ports are free.
fn find_ports() -> [u16; 4] {
    let mut ports = Vec::<u16>::new();
    while ports.len() < 4 {
        let port = find_free_port();
        let is_grpc_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port + GRPC_OFFSET)).is_ok();
        let is_apart = |other: &u16| ![0, GRPC_OFFSET].contains(&other.abs_diff(port));
        if is_grpc_free && ports.iter().all(is_apart) {
            ports.push(port);
        }
    }
    ports.try_into().unwrap()
}

/// Returns whether the bucket was created: the server needs some time until it can.
fn create_bucket(program: &Path, master: u16) -> bool {
    let mut shell = Command::new("timeout")
        .arg("10")
        .arg(program)
        .arg("shell")
        .arg(format!("-master=127.0.0.1:{master}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = format!("s3.bucket.create -name {}\n", SeaweedFsServer::BUCKET);
    let is_written = shell
        .stdin
        .take()
        .is_some_and(|mut stdin| stdin.write_all(input.as_bytes()).is_ok());
    let output = shell.wait_with_output().unwrap();
    is_written && String::from_utf8_lossy(&output.stdout).contains("created")
}
