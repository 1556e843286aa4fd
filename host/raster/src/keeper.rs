//! The keeper of one worker: takes jobs one by one, and replaces a worker that dies or gets stuck.
//!
//! A page whose worker was lost is tried once more, in a fresh process with nothing else in it, so that a worker worn out
//! by earlier pages costs nobody a page. If the fresh one is lost as well, it is the page's fault and its error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use weir_core::error::RasterError;

use crate::desk::{Desk, Errand, Idle, closed};
use crate::nursery::Nursery;
use crate::pool::RasterConfig;
use crate::process::{Fall, Process};
use crate::work::{Reply, Served, Ticket, Work};

/// Target of the log records about lost workers. The page's retry or failure is an event of its job as well, so a command that
/// shows events leaves these records out.
pub const LOST_WORKERS: &str = "weir_raster::lost_workers";

/// What has happened in a pool since it began.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) started: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) pages: AtomicU64,
}

pub(crate) struct Keeper {
    pub(crate) slot: usize,
    pub(crate) config: Arc<RasterConfig>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) nursery: Arc<Nursery>,
    pub(crate) tally: Arc<Tally>,
}

impl Keeper {
    /// Works until the pool is closed.
    pub(crate) async fn keep(self, mut errands: mpsc::UnboundedReceiver<Errand>) {
        let mut process = None;
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Job(job) => {
                    let (reply, outcome) = self.work(&mut process, job).await;
                    if process
                        .take_if(|p| p.pages >= self.config.recycle_pages)
                        .is_some()
                    {
                        self.tally.recycled.fetch_add(1, Ordering::Relaxed);
                    }
                    // Before the answer: who asks one thing after the other finds the same worker again.
                    self.desk.rest(Idle {
                        slot: self.slot,
                        home: process.as_ref().map(|p| p.home),
                        open: process.as_ref().map(Process::open_documents).unwrap_or_default(),
                    });
                    drop(reply.send(outcome));
                }
                Errand::Forget(document) => {
                    if let Some(living) = &mut process
                        && living.forget(document).await.is_err()
                    {
                        living.bury().await;
                        process = None;
                    }
                }
            }
        }
    }

    /// Does a job, with a second try if it costs the worker. Its bytes are given back before its outcome is known to
    /// anybody, unless they are part of it.
    async fn work(&self, process: &mut Option<Process>, mut job: Ticket) -> (Reply, Served) {
        let mut outcome = Err(closed());
        // One that ended between jobs is no fault of this one, and does not use up a try.
        if let Some(mut gone) = process.take_if(|p| p.is_gone()) {
            let end = gone.bury().await;
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                pid = gone.pid,
                end,
                "a PDF worker ended while it had nothing to do"
            );
        }
        for _try in 0..2 {
            let worker = match process {
                Some(worker) => worker,
                None => match Process::start(&self.config, &self.desk, &self.nursery).await {
                    Ok(started) => {
                        self.tally.started.fetch_add(1, Ordering::Relaxed);
                        process.insert(started)
                    }
                    Err(error) => return (job.reply, Err(error)),
                },
            };
            let fall = match worker.serve(&self.config, &mut job).await {
                Ok(served) => {
                    outcome = served;
                    break;
                }
                Err(fall) => fall,
            };
            let end = worker.bury().await;
            let pid = worker.pid;
            *process = None;
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            let work = &job.work;
            if matches!(work, Work::Probe(_)) {
                tracing::debug!(
                    pid,
                    ?fall,
                    end,
                    ?work,
                    "the sandbox ended a worker that tried what it denies"
                );
            } else {
                tracing::warn!(target: LOST_WORKERS, pid, ?fall, end, ?work, "a PDF worker was lost");
            }
            outcome = Err(error_of(&fall, &end, work));
            if job.reply.is_closed() || !work.is_single() {
                break;
            }
        }
        let pages = u64::from(job.work.pages());
        self.tally.pages.fetch_add(pages, Ordering::Relaxed);
        (job.reply, outcome)
    }
}

fn error_of(fall: &Fall, end: &str, work: &Work) -> RasterError {
    let page = work.page();
    match fall {
        Fall::Stuck { seconds } if page == 0 => RasterError::OpenDeadline { seconds: *seconds },
        Fall::Stuck { seconds } => RasterError::Deadline {
            page,
            seconds: *seconds,
        },
        Fall::Died => RasterError::WorkerDied {
            page,
            reason: end.into(),
        },
        Fall::Nonsense(reason) => RasterError::WorkerDied {
            page,
            reason: format!("it was stopped for a wrong answer: {reason}"),
        },
    }
}
