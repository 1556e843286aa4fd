//! Searching a data folder that another process holds.
//!
//! One process may have the vector shard open, yet a person wants to search from a second terminal while documents are
//! taken in at the first. So the holder answers searches on a socket in the folder, `weir.sock`, and [`search`] asks there;
//! if nobody holds the folder it opens the shard itself for the moment. The query is embedded by the asker: the holder's
//! models stay with its own work. The ledger needs none of this, SQLite lets others read (see
//! [`LedgerReader`](crate::LedgerReader)).
//!
//! A question is one JSON object, ended by closing the sending side; the answer is another, ended likewise. The socket is its
//! owner's alone, like the files that the same person could read anyway, so a question names its tenant and is believed.
//! A socket file that a killed process left refuses connections, which tells the asker that nobody is there, and is replaced
//! by the next holder.

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
use weir_core::search::{Hit, Query};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::folder::FolderLock;
use crate::location::Location;
use crate::vectors::EdgeVectors;

const SOCKET: &str = "weir.sock";
/// Questions answered at once; more wait in the socket's backlog.
const QUESTIONS: usize = 16;
/// Longest question: a query of some thousand words with its embedding is a tenth of it.
const MAX_QUESTION: u64 = 1 << 20;
/// Longest answer: a thousand passages of some thousand words are a tenth of it.
const MAX_ANSWER: u64 = 64 << 20;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// A query and the index it is meant for.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
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
enum Answer {
    Hits(Vec<Hit>),
    Refused(String),
}

/// Answers searches of other processes until it is closed.
pub(crate) struct SearchDesk {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    socket: PathBuf,
}

impl SearchDesk {
    /// Opens `<data>/weir.sock`. The caller holds the folder's lock, so a socket that is there belongs to nobody.
    pub(crate) fn open(data: &Path, vectors: &Arc<EdgeVectors>) -> Result<Self, StorageError> {
        let socket = data.join(SOCKET);
        let listener = listen(data).map_err(|e| Location::new("the socket for searches", &socket).io(&e))?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            stop: Some(stop),
            task: tokio::spawn(serve(listener, Arc::downgrade(vectors), stopped)),
            socket,
        })
    }

    /// Returns when the last answer is given or given up, and the socket is gone.
    pub(crate) async fn close(mut self) {
        drop(self.stop.take());
        // Ends also by a panic, which its own log tells of.
        let _ = (&mut self.task).await;
    }
}

impl Drop for SearchDesk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, vectors: Weak<EdgeVectors>, mut stopped: oneshot::Receiver<()>) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = answering.join_next() => {}
            accepted = listener.accept(), if answering.len() < QUESTIONS => match accepted {
                Ok((stream, _)) => {
                    // Weakly held, so that dropping the storage is enough to close the index.
                    let Some(vectors) = vectors.upgrade() else { break };
                    answering.spawn(timeout(PATIENCE, answer(stream, vectors)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a search from another process could not be taken");
                    sleep(RETRY_EVERY).await;
                }
            },
        }
    }
    answering.shutdown().await;
}

/// Takes one question and answers it. An asker who went away is no error.
async fn answer(mut stream: UnixStream, vectors: Arc<EdgeVectors>) {
    let mut question = Vec::new();
    if (&mut stream)
        .take(MAX_QUESTION)
        .read_to_end(&mut question)
        .await
        .is_err()
    {
        return;
    }
    let answer = match serde_json::from_slice(&question) {
        Ok(question) => match decide(question, &vectors).await {
            Ok(hits) => Answer::Hits(hits),
            Err(error) => Answer::Refused(error.to_string()),
        },
        Err(error) => Answer::Refused(format!("the question cannot be read: {error}")),
    };
    if let Ok(answer) = serde_json::to_vec(&answer) {
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    }
}

async fn decide(question: Question, vectors: &EdgeVectors) -> Result<Vec<Hit>, StorageError> {
    let (model, _) = vectors.made_for()?;
    if model != question.model {
        return Err(StorageError::Failed {
            what: "searching".into(),
            reason: format!(
                "its vectors are of model {model}, the question's of {}",
                question.model
            ),
        });
    }
    let query = Query {
        text: question.text,
        dense: question.dense,
        top_k: question.top_k,
        documents: question.documents,
        collection: question.collection,
        labels: question.labels,
    };
    vectors.search(&question.tenant, &query).await
}

/// Searches a data folder, whoever holds it. `model` made the query's embedding.
///
/// [`StorageError::Missing`] if there is no such folder; [`StorageError::InUse`] if someone holds it for ten seconds without
/// answering.
pub async fn search(
    data: &Path,
    model: &str,
    tenant: &TenantId,
    query: &Query,
) -> Result<Vec<Hit>, StorageError> {
    if !data.exists() {
        return Err(StorageError::Missing {
            what: "the data folder".into(),
        });
    }
    let question = Question {
        tenant: tenant.clone(),
        model: model.to_owned(),
        text: query.text.clone(),
        dense: query.dense.clone(),
        top_k: query.top_k,
        documents: query.documents.clone(),
        collection: query.collection.clone(),
        labels: query.labels.clone(),
    };
    let question = serde_json::to_vec(&question).map_err(|e| failed(e.to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Between the two a holder may come or go, so both are tried until one of them does.
        match timeout(PATIENCE, ask(data, &question)).await {
            Ok(Ok(Answer::Hits(hits))) => return Ok(hits),
            Ok(Ok(Answer::Refused(reason))) => return Err(failed(reason)),
            Ok(Err(error)) => tracing::debug!(%error, "nobody answers searches"),
            Err(_) => tracing::debug!("whoever holds the folder takes too long to answer"),
        }
        match open_for_a_moment(data, model, query.dense.len()).await {
            Ok(vectors) => {
                let hits = vectors.search(tenant, query).await;
                vectors.close().await?;
                return hits;
            }
            Err(StorageError::InUse { .. }) if Instant::now() < deadline => sleep(RETRY_EVERY).await,
            Err(error) => return Err(error),
        }
    }
}

async fn open_for_a_moment(data: &Path, model: &str, dimensions: usize) -> Result<EdgeVectors, StorageError> {
    let (data_, model) = (data.to_owned(), model.to_owned());
    tokio::task::spawn_blocking(move || {
        let lock = Arc::new(FolderLock::try_take(&data_)?);
        EdgeVectors::open(&data_, &model, dimensions, lock)
    })
    .await
    .map_err(|e| failed(e.to_string()))?
}

async fn ask(data: &Path, question: &[u8]) -> io::Result<Answer> {
    let (_folder, socket) = reachable(data, SOCKET)?;
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(question).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Listens under another name, closes the socket to others, and only then gives it its name.
fn listen(data: &Path) -> io::Result<UnixListener> {
    let unfinished = format!("{SOCKET}.unfinished");
    let named = data.join(&unfinished);
    let _ = std::fs::remove_file(&named);
    let (_folder, path) = reachable(data, &unfinished)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(&named, PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&named, data.join(SOCKET))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// A way to a socket in `data` that is short enough. The kernel takes 107 bytes, a data folder's path may be longer; an open
/// folder can be reached by its number.
fn reachable(data: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = rustix::fs::open(
        data,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    Ok((folder, path))
}

fn failed(reason: String) -> StorageError {
    StorageError::Failed {
        what: "searching".into(),
        reason,
    }
}
