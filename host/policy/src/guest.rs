//! What the host keeps beside each instance: whose it is, how much it may use, and what it last complained about.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use wasmtime::{ResourceLimiter, Result, UpdateDeadline};
use weir_core::manifest::Manifest;
use weir_core::ports::{Capabilities, PolicyState};
use weir_core::said::{LogLevel, Remark, RemarkKind};
use weir_core::{JobId, TenantId};

use crate::bindings::log::Level;
use crate::engine::TABLE_ELEMENTS;
use crate::heard::Ear;
use crate::state::PendingState;
use crate::turn::Turn;
use crate::wasi::Wasi;

/// Lines a job may write to its tenant's log.
const LOG_LINES: u32 = 1000;
/// The function a guest is in while it is instantiated.
pub(crate) const START: &str = "start";
/// Characters of a line.
const LOG_CHARS: usize = 1000;

/// Questions to the host in one call: several for each line of a page.
pub(crate) const QUESTIONS: u32 = 1000;

/// A guest asked for more of something than a call may.
#[derive(Debug, thiserror::Error)]
#[error("more than {0}")]
pub(crate) struct Excess(pub(crate) String);

/// How long a call may wait for the host's answers: a component that asks a language model may wait for its answer, but not
/// forever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A call waited longer than that.
#[derive(Debug, thiserror::Error)]
#[error("the host did not answer in time")]
pub(crate) struct Impatience;

/// What all instances of a job share.
pub(crate) struct JobContext {
    pub(crate) tenant: TenantId,
    pub(crate) job: JobId,
    pub(crate) manifest: Manifest,
    pub(crate) capabilities: Arc<dyn Capabilities>,
    pub(crate) state: Arc<dyn PolicyState>,
    lines: AtomicU32,
    /// Failed calls so far.
    pub(crate) failures: AtomicU32,
}

impl JobContext {
    pub(crate) fn new(
        tenant: TenantId,
        job: JobId,
        manifest: Manifest,
        capabilities: Arc<dyn Capabilities>,
        state: Arc<dyn PolicyState>,
    ) -> Self {
        Self {
            tenant,
            job,
            manifest,
            capabilities,
            state,
            lines: AtomicU32::new(0),
            failures: AtomicU32::new(0),
        }
    }
}

/// The data of an instance's store.
pub(crate) struct Guest {
    pub(crate) job: Arc<JobContext>,
    pub(crate) component: Arc<str>,
    memory_limit: usize,
    /// Bytes of all its linear memories.
    memory: usize,
    /// What the last growth added, to be taken back if it fails after all.
    grown: usize,
    /// Whether this call was denied memory.
    denied: bool,
    /// The function it is asked in.
    function: &'static str,
    /// How long this call may still run.
    pub(crate) turn: Turn,
    /// What this call has asked the host.
    questions: u32,
    /// What this call waited for capabilities.
    waited: Duration,
    /// The last error this call wrote to the log: a panic's message, if it panicked.
    complaint: Option<String>,
    /// What this call hears from capabilities.
    pub(crate) ear: Ear,
    /// What this call has written to the state. Shared with the futures of the call's questions, one at a time.
    pub(crate) pending_state: Arc<Mutex<PendingState>>,
    wasi: Option<Box<Wasi>>,
}

impl Guest {
    pub(crate) fn new(job: Arc<JobContext>, component: Arc<str>, memory_limit: usize) -> Self {
        Self {
            job,
            component,
            memory_limit,
            memory: 0,
            grown: 0,
            denied: false,
            function: START,
            turn: Turn::new(),
            questions: 0,
            waited: Duration::ZERO,
            complaint: None,
            ear: Ear::Deaf,
            pending_state: Arc::default(),
            wasi: None,
        }
    }

    /// Prepares for a call of `function` that may run for so long.
    pub(crate) fn begin(&mut self, function: &'static str, millis: u32) {
        self.function = function;
        self.turn.begin(millis);
        self.questions = 0;
        self.denied = false;
        self.waited = Duration::ZERO;
        self.complaint = None;
        if let Some(wasi) = &self.wasi {
            wasi.forget_said();
        }
    }

    /// WASI, made when it is first asked for: few guests need it, and it is larger than all the rest of this.
    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new()))
    }

    /// What happens at a tick: the guest lets others run, or is ended.
    pub(crate) fn tick(&mut self) -> UpdateDeadline {
        match self.turn.tick() {
            Some(others) => UpdateDeadline::YieldCustom(1, others),
            None => UpdateDeadline::Interrupt,
        }
    }

    /// Counts a question to the host.
    pub(crate) fn question(&mut self) -> Result<()> {
        self.questions += 1;
        if self.questions > QUESTIONS {
            return Err(Excess(format!("{QUESTIONS} questions to the host in a call")).into());
        }
        Ok(())
    }

    pub(crate) fn was_denied_memory(&self) -> bool {
        self.denied
    }

    pub(crate) fn memory_limit(&self) -> usize {
        self.memory_limit
    }

    /// What a call ran that took so long on the clock, and what it waited for the host.
    pub(crate) fn ran(&self, took: Duration) -> (Duration, Duration) {
        let briefly = || took.saturating_sub(self.waited);
        (self.turn.ran().unwrap_or_else(briefly), self.waited)
    }

    /// Waits for the host, for what is left of its patience with this call. The time is not the guest's.
    pub(crate) async fn wait<T>(&mut self, answer: impl Future<Output = T> + Send) -> Result<T> {
        self.turn.pause();
        let started = Instant::now();
        let answer = timeout(PATIENCE.saturating_sub(self.waited), answer).await;
        self.waited += started.elapsed();
        self.turn.resume();
        Ok(answer.map_err(|_| Impatience)?)
    }

    /// Why the guest gave up, in its own words, which may have several lines.
    pub(crate) fn take_complaint(&mut self) -> Option<String> {
        self.complaint
            .take()
            .or_else(|| self.wasi.as_ref().and_then(|wasi| wasi.take_said()))
    }

    /// Writes a line to the tenant's log.
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        let line = one_line(message, LOG_CHARS);
        match self.job.lines.fetch_add(1, Ordering::Relaxed) {
            before if before < LOG_LINES => self.write(level, line.clone()),
            LOG_LINES => self.write(
                Level::Warn,
                format!("{LOG_LINES} lines were written, no more of this job are kept"),
            ),
            _ => {}
        }
        if level == Level::Error {
            self.complaint = Some(line);
        }
    }

    fn write(&self, level: Level, line: String) {
        let (tenant, job, component) = (&self.job.tenant, &self.job.job, &self.component);
        let level = match level {
            Level::Debug => {
                tracing::debug!(target: "guest", %tenant, %job, %component, "{line}");
                LogLevel::Debug
            }
            Level::Info => {
                tracing::info!(target: "guest", %tenant, %job, %component, "{line}");
                LogLevel::Info
            }
            Level::Warn => {
                tracing::warn!(target: "guest", %tenant, %job, %component, "{line}");
                LogLevel::Warn
            }
            Level::Error => {
                tracing::error!(target: "guest", %tenant, %job, %component, "{line}");
                LogLevel::Error
            }
        };
        self.job.capabilities.said(Remark {
            component: component.to_string(),
            function: self.function.into(),
            what: RemarkKind::Line { level, message: line },
        });
    }
}

/// The first `chars` characters of a text, with a space for each control character: what a guest says ends up in logs and
/// on terminals, and must not be able to move a cursor or forge a line.
pub(crate) fn one_line(text: &str, chars: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let start = text.trim_start_matches(|c| plain(c).is_whitespace());
    let line: String = start.chars().take(chars).map(plain).collect();
    line.trim_end().to_owned()
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let grown = desired.saturating_sub(current);
        let total = self.memory.saturating_add(grown);
        if total > self.memory_limit {
            // The guest is told, not ended: a garbage collector may help itself.
            self.denied = true;
            return Ok(false);
        }
        self.memory = total;
        self.grown = grown;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        self.memory = self.memory.saturating_sub(std::mem::take(&mut self.grown));
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_leave_its_line() {
        assert_eq!(one_line(" a\nb\u{1b}[2Jc\r ", 100), "a b [2Jc");
        assert_eq!(one_line("\u{1b}[2J\r\n", 100), "[2J");
        assert_eq!(one_line("äöü", 2), "äö");
    }
}
