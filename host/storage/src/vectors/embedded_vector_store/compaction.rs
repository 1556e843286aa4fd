//! Removes the texts of removed passages from the files of an index, in steps between which changes go on.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use weir_core::StorageError;

use super::index_errors::index_error;
use super::passage_writer::PassageWriter;
use crate::worker_thread::WorkerThread;

/// Time between a removal and the compaction of the index. Removals within this time share one compaction.
pub(super) const COMPACT_DELAY: Duration = Duration::from_secs(20);
/// Time between two attempts of a step of the compaction for which searches or merges are in the way, and their number.
const COMPACT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
const MAX_COMPACT_RETRIES: u32 = 300;

/// Compacts the index [`COMPACT_DELAY`] after a removal, until the index is closed.
pub(super) async fn compact_after_removals(
    removal_notify: Arc<Notify>,
    writer: Weak<WorkerThread<PassageWriter>>,
) {
    loop {
        removal_notify.notified().await;
        sleep(COMPACT_DELAY).await;
        let Some(writer) = writer.upgrade() else { return };
        if let Err(error) = compact(&writer).await {
            tracing::error!(%error, "the index could not be compacted: removed passages are still in its files");
            removal_notify.notify_one();
        }
    }
}

pub(super) async fn compact(writer: &WorkerThread<PassageWriter>) -> Result<(), StorageError> {
    writer.run(PassageWriter::delete_empty_tenants).await?;
    if !writer.run(|writer| writer.needs_compaction()).await? {
        return Ok(());
    }
    let mut retries = 0..MAX_COMPACT_RETRIES;
    loop {
        let mut failed = None;
        let segments = writer.run(|writer| writer.words().list_segments_with_removed_passages());
        for segment in segments.await? {
            let rewriting = writer
                .run(move |writer| writer.words().rewrite_segment(segment))
                .await?;
            // The result is awaited here, so that changes go on meanwhile.
            failed = rewriting.await.err().or(failed);
        }
        match (failed, retries.next()) {
            (None, _) => break,
            (Some(error), None) => return Err(index_error(error)),
            (Some(_), Some(_)) => sleep(COMPACT_RETRY_INTERVAL).await,
        }
    }
    // Always, because an earlier process may have been killed before this step.
    writer.run(|writer| writer.words().delete_unused_files()).await?;
    while writer.run(PassageWriter::shrink_file).await? {}
    while !writer.run(PassageWriter::truncate_log).await? {
        if retries.next().is_none() {
            return Err(index_error("searches need its log all the time"));
        }
        sleep(COMPACT_RETRY_INTERVAL).await;
    }
    Ok(())
}
