//! `weir run`: documents in, progress shown, results out.

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
use weir_engine::{DocumentEnd, DocumentSpec, JobHandle, JobSpec};

use crate::args::Run;
use crate::display::Display;
use crate::files;
use crate::host::Host;
use crate::output::Output;
use crate::pipeline;
use crate::places::Places;
use crate::summaries;
use crate::terminal::announce;

/// Stopped by Ctrl-C, as a shell would report it.
const INTERRUPTED: u8 = 130;

/// Said before any work, where every page would say it.
const NO_VISION_MODEL: &str = "no vision model is set up: set vision = true of an [[llm.provider]] whose model takes images, see `weir settings`";

/// Ingests files and waits for all of them.
pub(crate) async fn run(run: &Run, json: bool, settings: &Settings, places: &Places) -> Result<ExitCode> {
    let pipeline = Arc::new(pipeline::load(run, &places.components)?);
    let revision = pipeline.revision;
    let tenant = TenantId::single();
    run.filing().check()?;
    let found = files::find(&run.files);
    let host = Host::open(settings, places).await?;
    if run.vision.as_deref().is_some_and(|when| when != "never") {
        ensure!(host.sees(), NO_VISION_MODEL);
    }
    let mut output = match &run.out {
        Some(folder) => Some(Output::new(folder, host.blobs(), host.ledger())?),
        None => None,
    };

    let files = found.files.into_iter().map(|path| (path, None));
    let refused = found.refused.into_iter().map(|(path, why)| (path, Some(why)));
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
        filing: run.filing(),
        ..JobSpec::new(tenant.clone(), pipeline, documents)
    };
    let span = tracing::info_span!("job", job = %spec.id);
    let job = Arc::new(span.in_scope(|| host.engine.start(spec)));
    let interrupts = tokio::spawn(cancel_on_signal(Arc::clone(&job)));

    let wanted = run.pages.clone().unwrap_or(1..=u32::MAX);
    let mut events = job.events();
    // Programs wait for events; a person is told why there are none yet.
    let mut next = match json {
        true => events.next().await,
        false => announce("preparing the pipeline and its components", events.next()).await,
    };
    let mut display = Display::new(json);
    while let Some(event) = next {
        let event = event?;
        display.show(&event);
        if let Some(output) = &mut output {
            write(output, &tenant, &event, &revision, &wanted, &display).await?;
        }
        next = events.next().await;
    }
    let outcome = job.wait().await;
    display.finish();
    // A person has read it already where a document failed by it; programs read events, and people what stands beside them.
    let is_reported = |error| {
        let mut ends = outcome.documents.iter().map(|document| &document.end);
        !json
            && ends.any(|end| matches!(end, DocumentEnd::Failed { error: reported, .. } if reported == error))
    };
    if let Some(error) = outcome.error.as_ref().filter(|error| !is_reported(*error)) {
        display.complain(&format!("weir: {}", error.message));
    }
    interrupts.abort();
    if run.summarize && !json {
        for document in outcome.documents.iter().filter_map(|document| document.document) {
            summaries::print(host.blobs().as_ref(), &tenant, &document, &revision).await?;
        }
    }
    host.close().await?;
    Ok(match outcome.state {
        JobState::Done => ExitCode::SUCCESS,
        JobState::Cancelled => ExitCode::from(INTERRUPTED),
        JobState::Failed | JobState::Queued | JobState::Running => ExitCode::from(crate::FAILED),
    })
}

/// Writes a document's folder when its last event has come.
async fn write(
    output: &mut Output,
    tenant: &TenantId,
    event: &Event,
    revision: &weir_core::RevisionId,
    wanted: &RangeInclusive<u32>,
    display: &Display,
) -> Result<()> {
    let (EventKind::DocumentDone { name, .. }
    | EventKind::DocumentFailed { name, .. }
    | EventKind::DocumentCancelled { name, .. }) = &event.what
    else {
        return Ok(());
    };
    if let Some(document) = &event.document {
        let folder = output.write(tenant, document, name, revision, wanted).await?;
        display.say(&format!("{name}: written to {}", folder.display()));
    }
    Ok(())
}

/// The first Ctrl-C (or SIGTERM) stops taking pages and keeps what is done; a second one ends the process where it stands,
/// which loses nothing that was recorded.
async fn cancel_on_signal(job: Arc<JobHandle>) {
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
            std::process::exit(i32::from(INTERRUPTED));
        }
        job.cancel();
    }
}
