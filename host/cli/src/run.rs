//! `weir run`: ingests documents, shows the progress and writes the results.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::settings::Settings;
use weir_engine::{DocumentEndState, DocumentSpec, JobHandle, JobSpec};

use crate::app_folders::AppFolders;
use crate::args::RunArgs;
use crate::display::ProgressDisplay;
use crate::host_services::HostServices;
use crate::input_files;
use crate::output_folder::OutputFolder;
use crate::pipeline_loader;
use crate::summaries;
use crate::terminal::{EXIT_FAILED, await_with_progress};

/// Exit code after Ctrl-C, as shells use it.
const EXIT_INTERRUPTED: u8 = 130;

/// Error if `--vision` is used without a vision model. It is checked before any work, because every page would fail with it.
const NO_VISION_MODEL_ERROR: &str = "no vision model is configured: set supports_images = true for an [[llm.provider]] whose model accepts images; see `weir settings`";

/// Ingests the files and waits until all are done.
pub(crate) async fn run(
    run: &RunArgs,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    let pipeline = Arc::new(pipeline_loader::load_pipeline(run, &folders.default_components)?);
    let revision = pipeline.revision;
    let tenant = TenantId::default_tenant();
    run.collection_and_labels_request().validate()?;
    let found = input_files::find_input_files(&run.files);
    let host = HostServices::open(settings, folders).await?;
    if run.vision.as_deref().is_some_and(|when| when != "never") {
        ensure!(host.language_model_supports_images(), NO_VISION_MODEL_ERROR);
    }
    let mut output = match &run.out {
        Some(folder) => Some(OutputFolder::new(folder, host.blob_store(), host.ledger())?),
        None => None,
    };

    let files = found.files.into_iter().map(|path| (path, None));
    let refused = found.rejected.into_iter().map(|(path, why)| (path, Some(why)));
    let documents = files
        .chain(refused)
        .map(|(path, missing)| DocumentSpec {
            password: run.password.clone(),
            pages: run.pages.clone(),
            missing,
            ..DocumentSpec::new(path)
        })
        .collect();
    let spec = JobSpec {
        force: run.force,
        summarize: run.summarize,
        requested_placement: run.collection_and_labels_request(),
        ..JobSpec::new(tenant.clone(), pipeline, documents)
    };
    let span = tracing::info_span!("job", job = %spec.id);
    let job = Arc::new(span.in_scope(|| host.engine.start_or_resume_job(spec)));
    let interrupts = tokio::spawn(cancel_job_on_signal(Arc::clone(&job)));

    let page_range = run.pages.clone().unwrap_or(1..=u32::MAX);
    let mut events = job.stream_events();
    // Without JSON, a message explains the time until the first event.
    let mut next = match json {
        true => events.next().await,
        false => await_with_progress("preparing the pipeline and its components", events.next()).await,
    };
    let mut display = ProgressDisplay::new(json);
    while let Some(event) = next {
        let event = event?;
        display.show_event(&event);
        if let Some(output) = &mut output {
            write_output_after_document_end(output, &tenant, &event, &revision, &page_range, &display)
                .await?;
        }
        next = events.next().await;
    }
    let outcome = job.await_outcome().await;
    display.clear_bars();
    // Without JSON, the job's error is already printed if a document failed with it. With JSON, standard error has no
    // errors of documents, so the job's error is always printed.
    let is_reported = |error| {
        let mut ends = outcome.documents.iter().map(|document| &document.end);
        !json
            && ends.any(
                |end| matches!(end, DocumentEndState::Failed { error: reported, .. } if reported == error),
            )
    };
    if let Some(error) = outcome.error.as_ref().filter(|error| !is_reported(*error)) {
        display.print_error(&format!("weir: {}", error.message));
    }
    interrupts.abort();
    if run.summarize && !json {
        for document in outcome.documents.iter().filter_map(|document| document.document) {
            summaries::read_and_print_summaries(host.blob_store().as_ref(), &tenant, &document, &revision)
                .await?;
        }
    }
    host.close().await?;
    Ok(match outcome.state {
        JobState::Done => ExitCode::SUCCESS,
        JobState::Cancelled => ExitCode::from(EXIT_INTERRUPTED),
        JobState::Failed | JobState::Queued | JobState::Running => ExitCode::from(EXIT_FAILED),
    })
}

/// Writes the document's output folder if `event` is the document's last. Other events are ignored.
async fn write_output_after_document_end(
    output: &mut OutputFolder,
    tenant: &TenantId,
    event: &Event,
    revision: &weir_core::RevisionId,
    page_range: &RangeInclusive<u32>,
    display: &ProgressDisplay,
) -> Result<()> {
    let (EventKind::DocumentDone { name, .. }
    | EventKind::DocumentFailed { name, .. }
    | EventKind::DocumentCancelled { name, .. }) = &event.kind
    else {
        return Ok(());
    };
    if let Some(document) = &event.document {
        let folder = output
            .write_document(tenant, document, name, revision, page_range)
            .await?;
        display.print_note(&format!("{name}: written to {}", folder.display()));
    }
    Ok(())
}

/// Cancels the job at the first Ctrl-C or SIGTERM: no further pages start, and finished pages are kept. The second signal ends
/// the process at once, which loses nothing that is recorded in the ledger.
async fn cancel_job_on_signal(job: Arc<JobHandle>) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    for last in [false, true] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if last {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        job.cancel_job();
    }
}
