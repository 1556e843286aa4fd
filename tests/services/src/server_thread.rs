//! A server on a thread of the test.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::free_port::find_free_port;

type Serve = dyn Fn(TcpListener) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync;

/// A server on a port of loopback, with a thread and a runtime of its own. It stops when the value is dropped.
pub struct ServerThread {
    address: SocketAddr,
    serve: Arc<Serve>,
    /// `None` while it is stopped.
    running: Option<RunningThread>,
}

struct RunningThread {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ServerThread {
    /// Starts a server that accepts connections with `serve`, which is called for each start.
    pub fn start<F>(serve: impl Fn(TcpListener) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let mut server = Self {
            address: (Ipv4Addr::LOCALHOST, find_free_port()).into(),
            serve: Arc::new(move |listener| Box::pin(serve(listener))),
            running: None,
        };
        server.start_again();
        server
    }

    /// Returns the address at which the server listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server as a kill does: its connections are closed at once.
    pub fn stop(&mut self) {
        if let Some(RunningThread { stop, thread }) = self.running.take() {
            drop(stop);
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }

    /// Starts a stopped server at the same address, and returns when it listens.
    pub fn start_again(&mut self) {
        self.stop();
        let (stop, stopped) = oneshot::channel();
        let (report_listening, listening) = mpsc::channel();
        let (address, serve) = (self.address, Arc::clone(&self.serve));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            // Dropping the runtime ends the tasks of the connections.
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                report_listening.send(()).unwrap();
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        listening.recv().unwrap();
        self.running = Some(RunningThread { stop, thread });
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        self.stop();
    }
}
