//! PostgreSQL from the system's package.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::free_port::find_free_port;
use crate::postgres_session::PostgresSession;
use crate::server_process::ServerProcess;

/// A PostgreSQL server with an empty database `weir` and the user `weir`, who needs no password.
///
/// It does not sync its files, which is faster and makes no difference unless the machine fails.
pub struct PostgresServer {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    /// `None` while it is stopped.
    process: Option<ServerProcess>,
}

impl PostgresServer {
    /// Starts a server. Panics if the package is not installed.
    #[must_use]
    pub fn start() -> Self {
        let programs = find_programs();
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            folder,
            programs,
            port: find_free_port(),
            process: None,
        };
        if let Some((user, group)) = server_account() {
            chown(server.folder.path(), Some(user), Some(group)).unwrap();
        }
        server.run_program(
            "initdb",
            &[
                "--no-sync",
                "--auth=trust",
                "--username=weir",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
        );
        server.start_again();
        server.run_program(
            "psql",
            &[
                "--quiet",
                "--dbname",
                &server.database_url("postgres"),
                "--command",
                "CREATE DATABASE weir",
            ],
        );
        server
    }

    /// Returns the URL of the database `weir`.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("weir")
    }

    /// Makes the server refuse connections without TLS. `chain` and `key` are its certificate and the key, as PEM.
    pub fn require_tls(&self, chain: &str, key: &str) {
        let data = self.folder.path().join("data");
        for (name, content) in [
            ("server.crt", chain),
            ("server.key", key),
            ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n"),
        ] {
            let file = data.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = server_account() {
                chown(&file, Some(user), Some(group)).unwrap();
            }
        }
        self.query("ALTER SYSTEM SET ssl = on");
        self.query("SELECT pg_reload_conf()");
    }

    /// Stops the server as `systemctl stop` does: it ends all connections and rolls back their transactions.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT);
        }
    }

    /// Starts a stopped server with its data.
    pub fn start_again(&mut self) {
        let log = self.folder.path().join("log");
        let mut command = self.command("postgres");
        let process = command
            .args(["-p", &self.port.to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            .args(["-c", "fsync=off", "-c", "max_connections=200"])
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).unwrap());
        let mut process = ServerProcess::start(process);
        let port = self.port;
        process.wait_until_ready(&log, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() && is_accepting(&self.programs, port)
        });
        self.process = Some(process);
    }

    /// Runs a statement with `psql` and returns its rows, one on each line, with columns separated by `|`.
    pub fn query(&self, sql: &str) -> String {
        self.run_program(
            "psql",
            &[
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--dbname",
                &self.url(),
                "--command",
                sql,
            ],
        )
    }

    /// Opens a session.
    #[must_use]
    pub fn open_session(&self) -> PostgresSession {
        PostgresSession::start(self.command("psql").args(["--dbname", &self.url()]))
    }

    fn database_url(&self, database: &str) -> String {
        format!("postgres://weir@127.0.0.1:{}/{database}", self.port)
    }

    fn run_program(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(self.folder.path())
            .env("PGDATA", self.folder.path().join("data"))
            // Programs look for certificates there.
            .env("HOME", self.folder.path());
        if let Some((user, group)) = server_account() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Without a signal its child processes would live until they notice.
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::QUIT);
        }
    }
}

/// Returns the folder of the programs of the newest version that is installed.
fn find_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let version = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
    };
    let newest = versions
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::metadata(path.join("bin/postgres")).is_ok_and(|file| file.mode() & 1 == 1))
        .max_by_key(|path| version(path));
    newest
        .unwrap_or_else(|| panic!("PostgreSQL is not installed: run deploy/setup test"))
        .join("bin")
}

fn is_accepting(programs: &Path, port: u16) -> bool {
    let status = Command::new(programs.join("pg_isready"))
        .args(["--quiet", "--host=127.0.0.1", "--port", &port.to_string()])
        .status();
    status.is_ok_and(|status| status.success())
}

/// Returns the user and group of the server, which refuses to run as root; `None` for the user of this process.
fn server_account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut fields = account
        .unwrap()
        .split(':')
        .skip(1)
        .map(|field| field.parse().ok());
    Some((fields.next().flatten().unwrap(), fields.next().flatten().unwrap()))
}
