//! A node of a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weir_test_services::find_free_port;

use crate::server::{ApiClient, TestServer};
use crate::{CommandOutput, WeirFixture, weir_binary_path};

/// The addresses of the stores that nodes share.
pub struct SharedStores {
    pub ledger: String,
    pub vectors: String,
    pub bucket: String,
    pub s3_endpoint: String,
    pub s3_access_key: String,
    pub s3_secret_key: String,
    pub redis: Option<String>,
}

/// Settings of all nodes.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub lease_seconds: u32,
    pub max_running_jobs: u32,
    /// Further settings in TOML, such as `[llm]` with its keys.
    pub more: String,
    /// Environment variables of the processes.
    pub environment: Vec<(String, String)>,
    /// `None` for the binary under test.
    pub binary: Option<PathBuf>,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            lease_seconds: 3,
            max_running_jobs: 2,
            more: String::new(),
            environment: Vec::new(),
            binary: None,
        }
    }
}

impl NodeSettings {
    fn to_toml(&self, name: &str, stores: &SharedStores) -> String {
        let redis = stores.redis.as_ref().map(|url| format!("redis = \"{url}\"\n"));
        format!(
            "[storage]\nledger = \"{}\"\nvectors = \"{}\"\nblobs = \"s3://{}/weir\"\ns3_endpoint = \"{}\"\n\
             s3_region = \"eu-central-1\"\ns3_path_style = true\n\
             [cluster]\nnode = \"{name}\"\nlease_seconds = {}\n{}\
             [server]\nmax_running_jobs = {}\nmetrics_access = \"open\"\n[raster]\nworker_processes = 1\n{}",
            stores.ledger,
            stores.vectors,
            stores.bucket,
            stores.s3_endpoint,
            self.lease_seconds,
            redis.unwrap_or_default(),
            self.max_running_jobs,
            self.more,
        )
    }
}

/// A node with a data folder of its own.
pub struct Node {
    name: String,
    weir: WeirFixture,
    /// The same for each start.
    address: SocketAddr,
    /// `None` while it is stopped.
    server: Option<TestServer>,
    /// The admin key of the cluster, which the first node that starts prints.
    admin_key: Arc<OnceLock<String>>,
}

impl Node {
    /// Starts a node with an empty data folder.
    pub fn start(
        name: &str,
        stores: &SharedStores,
        settings: &NodeSettings,
        admin_key: &Arc<OnceLock<String>>,
    ) -> Self {
        let mut weir = WeirFixture::new();
        if let Some(binary) = &settings.binary {
            weir.set_binary(binary.clone());
        }
        for (name, value) in &settings.environment {
            weir.set_variable(name, value);
        }
        weir.set_variable("AWS_ACCESS_KEY_ID", &stores.s3_access_key);
        weir.set_variable("AWS_SECRET_ACCESS_KEY", &stores.s3_secret_key);
        weir.write_file("weir.toml", settings.to_toml(name, stores).as_bytes());
        let mut node = Self {
            name: name.to_owned(),
            weir,
            address: (Ipv4Addr::LOCALHOST, find_free_port()).into(),
            server: None,
            admin_key: Arc::clone(admin_key),
        };
        node.start_again();
        node
    }

    /// Starts a stopped node with its data folder.
    pub fn start_again(&mut self) {
        let server = TestServer::start_at(&self.address.to_string(), &self.weir, &[]);
        if let Some(key) = server.admin_key() {
            self.admin_key.set(key.to_owned()).expect("one node prints a key");
        }
        self.server = Some(server);
    }

    /// Starts a stopped node with its data folder and the binary under test.
    pub fn start_again_with_tested_binary(&mut self) {
        self.weir.set_binary(weir_binary_path());
        self.start_again();
    }

    /// Returns the address at which it listens whenever it runs.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the node's process. Panics while the node is stopped.
    pub fn server(&self) -> &TestServer {
        self.server.as_ref().expect("the node runs")
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn stop(&mut self) -> CommandOutput {
        self.server.take().expect("the node runs").stop()
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        self.server.take().expect("the node runs").kill();
    }

    /// Freezes the node's process (SIGSTOP), but not its PDF workers.
    pub fn freeze(&self) {
        self.send_signal(Signal::STOP);
    }

    /// Ends the effect of [`freeze`](Self::freeze).
    pub fn unfreeze(&self) {
        self.send_signal(Signal::CONT);
    }

    fn send_signal(&self, signal: Signal) {
        let pid = i32::try_from(self.server().pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Runs a command with the node's settings.
    pub fn run_command(&self, arguments: &[&str]) -> CommandOutput {
        self.weir.run_command(arguments)
    }

    pub fn admin_client(&self) -> ApiClient {
        let key = self.admin_key.get().expect("a node has printed the admin key");
        self.server().client_with_key(key)
    }

    pub fn client_with_key(&self, key: &str) -> ApiClient {
        self.server().client_with_key(key)
    }

    /// Creates a tenant over HTTP and returns a client with the scopes `ingest` and `read`.
    pub fn create_tenant(&self, name: &str, more: Value) -> ApiClient {
        self.create_tenant_with_scopes(name, more, &["ingest", "read"])
    }

    /// Creates a tenant over HTTP and returns a client with these scopes.
    pub fn create_tenant_with_scopes(&self, name: &str, more: Value, scopes: &[&str]) -> ApiClient {
        let key = self.admin_client().create_tenant(name, more, scopes);
        self.client_with_key(&key)
    }
}
