//! Searches in a data folder that another process has locked: the server on a local socket, and its client.
//!
//! Only one process may have the index open, but a user may want to search while another process ingests documents. So
//! the process that has locked the folder runs searches that arrive at the socket `weir.sock` in the folder, and
//! [`search_data_folder`] sends them there. If no process has locked the folder, [`search_data_folder`] opens the index itself
//! for a moment. The client embeds the query, so the server's models are not used. Reading the ledger needs no server (see
//! [`SqlLedger`](crate::SqlLedger)).
//!
//! A request is one JSON object and ends when the client closes its sending side. The response is one JSON object too. Only the owner of
//! the folder can open the socket, and the owner can read all files of the folder. So the tenant of a request is not authenticated. The
//! socket file of a killed process refuses connections, and the next process that locks the folder replaces it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use weir_core::decision::Label;
use weir_core::ports::VectorStore;
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::data_folder::FolderLock;
use crate::path_with_public_name::PathWithPublicName;
use crate::unfinished_migration::check_no_unfinished_migration;
use crate::vectors::EmbeddedVectorStore;

const SOCKET_NAME: &str = "weir.sock";
/// Concurrent requests. Further requests wait in the socket's backlog.
const MAX_CONCURRENT_REQUESTS: usize = 16;
/// Maximum size of a request. A query of several thousand words with its embedding takes a tenth of this limit.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Maximum size of a response. A thousand passages of several thousand words each take a tenth of this limit.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;
/// Time that each side waits for the other.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// A query, with the embedding model of its vector.
#[derive(Debug, Serialize, Deserialize)]
struct SocketSearchRequest {
    tenant: TenantId,
    model: String,
    text: String,
    dense: Vec<f32>,
    top_k: usize,
    documents: Vec<DocumentId>,
    collection: Option<String>,
    labels: Vec<Label>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SearchResponse {
    Hits(Vec<SearchHit>),
    Refused(String),
}

/// Runs searches for other processes until it is closed.
pub(crate) struct SearchServer {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    socket: PathBuf,
}

impl SearchServer {
    /// Opens `<data>/weir.sock`. The caller holds the folder's lock, so no process listens on an existing socket file.
    pub(crate) fn bind_socket_and_start(
        data: &Path,
        vectors: &Arc<EmbeddedVectorStore>,
    ) -> Result<Self, StorageError> {
        let socket = data.join(SOCKET_NAME);
        let listener = bind_private_socket(data)
            .map_err(|e| PathWithPublicName::new("the socket for searches", &socket).io_error(&e))?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            stop: Some(stop),
            task: tokio::spawn(accept_requests(listener, Arc::downgrade(vectors), stopped)),
            socket,
        })
    }

    /// Aborts the requests under way, waits for their end and removes the socket.
    pub(crate) async fn close(mut self) {
        drop(self.stop.take());
        // An error means that the task panicked, which is logged elsewhere.
        let _ = (&mut self.task).await;
    }
}

impl Drop for SearchServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        self.task.abort();
    }
}

async fn accept_requests(
    listener: UnixListener,
    vectors: Weak<EmbeddedVectorStore>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = requests.join_next() => {}
            accepted = listener.accept(), if requests.len() < MAX_CONCURRENT_REQUESTS => match accepted {
                Ok((stream, _)) => {
                    // A weak reference, so that dropping the storage closes the index.
                    let Some(vectors) = vectors.upgrade() else { break };
                    requests.spawn(timeout(IO_TIMEOUT, handle_request(stream, vectors)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a search connection from another process could not be accepted");
                    sleep(RETRY_INTERVAL).await;
                }
            },
        }
    }
    requests.shutdown().await;
}

/// Reads one request and sends the response. A client that disconnects is not an error.
async fn handle_request(mut stream: UnixStream, vectors: Arc<EmbeddedVectorStore>) {
    let mut request = Vec::new();
    if (&mut stream)
        .take(MAX_REQUEST_BYTES)
        .read_to_end(&mut request)
        .await
        .is_err()
    {
        return;
    }
    let response = match serde_json::from_slice(&request) {
        Ok(request) => match run_search_request(request, &vectors).await {
            Ok(hits) => SearchResponse::Hits(hits),
            Err(error) => SearchResponse::Refused(error.to_string()),
        },
        Err(error) => SearchResponse::Refused(format!("the search request cannot be parsed: {error}")),
    };
    if let Ok(response) = serde_json::to_vec(&response) {
        let _ = stream.write_all(&response).await;
        let _ = stream.shutdown().await;
    }
}

async fn run_search_request(
    request: SocketSearchRequest,
    vectors: &EmbeddedVectorStore,
) -> Result<Vec<SearchHit>, StorageError> {
    let (model, _) = vectors.model_and_dimensions()?;
    if model != request.model {
        return Err(StorageError::Failed {
            what: "searching".into(),
            reason: format!(
                "the index is made for model {model}, but the query is embedded by {}",
                request.model
            ),
        });
    }
    let query = SearchQuery {
        query_text: request.text,
        dense_vector: request.dense,
        top_k: request.top_k,
        documents: request.documents,
        collection: request.collection,
        labels: request.labels,
    };
    vectors.search_by_vector_and_words(&request.tenant, &query).await
}

/// Searches a data folder, which another process may have locked. `model` is the embedding model of the query's vector.
///
/// Returns [`StorageError::NotFound`] if the folder does not exist, and [`StorageError::InUse`] if another process has locked it
/// and does not respond within ten seconds.
pub async fn search_data_folder(
    data: &Path,
    model: &str,
    tenant: &TenantId,
    query: &SearchQuery,
) -> Result<Vec<SearchHit>, StorageError> {
    if !data.exists() {
        return Err(StorageError::NotFound {
            what: "the data folder".into(),
        });
    }
    check_no_unfinished_migration(data)?;
    let request = SocketSearchRequest {
        tenant: tenant.clone(),
        model: model.to_owned(),
        text: query.query_text.clone(),
        dense: query.dense_vector.clone(),
        top_k: query.top_k,
        documents: query.documents.clone(),
        collection: query.collection.clone(),
        labels: query.labels.clone(),
    };
    let request = serde_json::to_vec(&request).map_err(|e| search_error(e.to_string()))?;
    let deadline = Instant::now() + IO_TIMEOUT;
    loop {
        // Another process may acquire or release the folder between the two attempts, so both are repeated until one succeeds.
        match timeout(IO_TIMEOUT, send_request(data, &request)).await {
            Ok(Ok(SearchResponse::Hits(hits))) => return Ok(hits),
            Ok(Ok(SearchResponse::Refused(reason))) => return Err(search_error(reason)),
            Ok(Err(error)) => tracing::debug!(%error, "no process answers searches at the socket"),
            Err(_) => tracing::debug!("the process that has locked the data folder did not respond in time"),
        }
        match lock_folder_and_open_index(data, model, query.dense_vector.len()).await {
            Ok(vectors) => {
                let hits = vectors.search_by_vector_and_words(tenant, query).await;
                vectors.close().await?;
                return hits;
            }
            Err(StorageError::InUse { .. }) if Instant::now() < deadline => sleep(RETRY_INTERVAL).await,
            Err(error) => return Err(error),
        }
    }
}

async fn lock_folder_and_open_index(
    data: &Path,
    model: &str,
    dimensions: usize,
) -> Result<EmbeddedVectorStore, StorageError> {
    let (folder, model) = (data.to_owned(), model.to_owned());
    tokio::task::spawn_blocking(move || {
        let lock = Arc::new(FolderLock::try_acquire(&folder)?);
        EmbeddedVectorStore::open_or_create(&folder, &model, dimensions, lock)
    })
    .await
    .map_err(|e| search_error(e.to_string()))?
}

async fn send_request(data: &Path, request: &[u8]) -> io::Result<SearchResponse> {
    let (_descriptor, socket) = shorten_socket_path(data, SOCKET_NAME)?;
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request).await?;
    stream.shutdown().await?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response).await?;
    Ok(serde_json::from_slice(&response)?)
}

/// Binds the socket under a temporary name, restricts it to its owner, and then renames it.
fn bind_private_socket(data: &Path) -> io::Result<UnixListener> {
    let unfinished = format!("{SOCKET_NAME}.unfinished");
    let named = data.join(&unfinished);
    let _ = std::fs::remove_file(&named);
    let (_descriptor, path) = shorten_socket_path(data, &unfinished)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(&named, PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&named, data.join(SOCKET_NAME))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Returns a short path to a socket in `data`, valid while the returned descriptor is open. The kernel limits socket paths to 107 bytes,
/// and the path of a data folder may be longer. So the path goes through the descriptor of the folder.
fn shorten_socket_path(data: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = rustix::fs::open(
        data,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    Ok((folder, path))
}

fn search_error(reason: String) -> StorageError {
    StorageError::Failed {
        what: "searching".into(),
        reason,
    }
}
