//! A component instance that is ready to be called, the limits of its calls, and the data that the host keeps for it: its job, its
//! limits and its last error message.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use wasmtime::{ResourceLimiter, Result, Store, UpdateDeadline};
use weir_core::component_log::{ComponentLogRecord, ComponentLogRecordKind, LogLevel};

use crate::bindings::log::Level;
use crate::bindings::{batching, chunking, progress, routing};
use crate::capability_trace::CapabilityTrace;
use crate::instance::cpu_budget::CpuBudget;
use crate::instance::guest_wasi::GuestWasi;
use crate::instance::job_context::JobContext;
use crate::instance::pending_state_changes::PendingStateChanges;
use crate::wasm_engine::MAX_TABLE_ELEMENTS;

/// Lines that a job may write to the component log.
const MAX_LOG_LINES: u32 = 1000;
/// Function name in errors and logs while a component is instantiated.
pub(crate) const START_FUNCTION: &str = "start";
/// Characters of a log line.
const MAX_LOG_LINE_CHARS: usize = 1000;

/// Host calls in one policy call: enough for several for each line of a page.
pub(crate) const MAX_HOST_CALLS: u32 = 1000;

/// A policy call made too many host calls.
#[derive(Debug, thiserror::Error)]
#[error("more than {0}")]
pub(crate) struct HostCallLimitExceeded(pub(crate) String);

/// Resource handles that an instance may hold at a time. An interpreter holds only a few.
pub(crate) const MAX_HANDLES: usize = 1024;

/// Total time that a policy call may wait for the host. Long enough for a request to a language model.
pub(crate) const HOST_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A policy call waited for the host for longer than [`HOST_CALL_TIMEOUT`].
#[derive(Debug, thiserror::Error)]
#[error("the host did not answer in time")]
pub(crate) struct HostCallTimedOut;

/// Limits of the policy calls of one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// Milliseconds of CPU time that a call may take.
    pub(crate) timeout_millis: u32,
    /// Bytes of linear memory of an instance.
    pub(crate) max_memory_bytes: usize,
    /// Bytes that a component may pass to the host in one call.
    pub(crate) max_output_bytes: usize,
}

/// A component instance with its store and its exported functions.
pub(crate) struct LiveInstance {
    pub(crate) store: Store<InstanceData>,
    pub(crate) exports: ExportsByRole,
}

/// The exported functions of the roles that the instance has in its job.
pub(crate) struct ExportsByRole {
    pub(crate) batching: Option<batching::Guest>,
    pub(crate) routing: Option<routing::Guest>,
    pub(crate) chunking: Option<chunking::Guest>,
    pub(crate) progress: Option<progress::Guest>,
}

/// The data in the wasmtime store of an instance.
pub(crate) struct InstanceData {
    pub(crate) job: Arc<JobContext>,
    pub(crate) component_name: Arc<str>,
    max_memory_bytes: usize,
    /// Bytes of all linear memories of the instance.
    memory_bytes: usize,
    /// Bytes of the last growth, which are subtracted again if wasmtime cannot grow the memory.
    last_growth_bytes: usize,
    /// Whether the current call was denied memory.
    was_denied_memory: bool,
    /// The function of the current call.
    function: &'static str,
    /// CPU time of the current call.
    pub(crate) cpu_budget: CpuBudget,
    /// Host calls of the current call.
    host_calls: u32,
    /// Time that the current call has waited for the host.
    host_wait: Duration,
    /// The last line of level `error` that the current call logged. After a panic, this is the panic's message.
    last_error_line: Option<String>,
    /// Capability trace of the current call.
    pub(crate) trace: CapabilityTrace,
    /// State changes of the current call. Shared with the futures of its host calls, of which one runs at a time.
    pub(crate) pending_state: Arc<Mutex<PendingStateChanges>>,
    wasi: Option<Box<GuestWasi>>,
}

impl InstanceData {
    pub(crate) fn new(job: Arc<JobContext>, component: Arc<str>, memory_limit: usize) -> Self {
        Self {
            job,
            component_name: component,
            max_memory_bytes: memory_limit,
            memory_bytes: 0,
            last_growth_bytes: 0,
            was_denied_memory: false,
            function: START_FUNCTION,
            cpu_budget: CpuBudget::new(),
            host_calls: 0,
            host_wait: Duration::ZERO,
            last_error_line: None,
            trace: CapabilityTrace::Off,
            pending_state: Arc::default(),
            wasi: None,
        }
    }

    /// Resets the data for a call of `function` that may use `millis` of CPU time.
    pub(crate) fn reset_for_call(&mut self, function: &'static str, millis: u32) {
        self.function = function;
        self.cpu_budget.reset_for_call(millis);
        self.host_calls = 0;
        self.was_denied_memory = false;
        self.host_wait = Duration::ZERO;
        self.last_error_line = None;
        if let Some(wasi) = &self.wasi {
            wasi.clear_output();
        }
    }

    /// Returns the WASI state, which is created at the first call: few guests need it, and it is larger than all other data here.
    pub(crate) fn get_or_create_wasi(&mut self) -> &mut GuestWasi {
        self.wasi.get_or_insert_with(|| Box::new(GuestWasi::new()))
    }

    /// Handles an epoch tick: the guest yields to other tasks, or is interrupted if its CPU budget is used up.
    pub(crate) fn on_epoch_tick(&mut self) -> UpdateDeadline {
        match self.cpu_budget.check_budget_on_epoch_tick() {
            Some(yield_to_others) => UpdateDeadline::YieldCustom(1, yield_to_others),
            None => UpdateDeadline::Interrupt,
        }
    }

    /// Counts a host call. Fails if the call has made too many.
    pub(crate) fn count_host_call(&mut self) -> Result<()> {
        self.host_calls += 1;
        if self.host_calls > MAX_HOST_CALLS {
            return Err(
                HostCallLimitExceeded(format!("{MAX_HOST_CALLS} host calls in a policy call")).into(),
            );
        }
        Ok(())
    }

    pub(crate) fn was_denied_memory(&self) -> bool {
        self.was_denied_memory
    }

    pub(crate) fn max_memory_bytes(&self) -> usize {
        self.max_memory_bytes
    }

    /// Returns the time that a call ran and the time that it waited for the host. `took` is its elapsed time, which is the basis
    /// if the call ended before the first tick.
    pub(crate) fn run_and_wait_time(&self, took: Duration) -> (Duration, Duration) {
        let elapsed_without_waits = || took.saturating_sub(self.host_wait);
        (
            self.cpu_budget
                .used_cpu_time()
                .unwrap_or_else(elapsed_without_waits),
            self.host_wait,
        )
    }

    /// Awaits a host call, up to the rest of the call's [`HOST_CALL_TIMEOUT`]. The time does not count against the CPU budget.
    pub(crate) async fn await_host_call<T>(&mut self, call: impl Future<Output = T> + Send) -> Result<T> {
        self.cpu_budget.pause_counting();
        let started = Instant::now();
        let result = timeout(HOST_CALL_TIMEOUT.saturating_sub(self.host_wait), call).await;
        self.host_wait += started.elapsed();
        self.cpu_budget.resume_counting();
        Ok(result.map_err(|_| HostCallTimedOut)?)
    }

    /// Removes and returns the guest's message about its failure, which may have several lines.
    pub(crate) fn take_error_message(&mut self) -> Option<String> {
        self.last_error_line
            .take()
            .or_else(|| self.wasi.as_ref().and_then(|wasi| wasi.take_output_lines()))
    }

    /// Writes a line to the component log. Lines over the limit of the job are dropped.
    pub(crate) fn write_log_line_within_limit(&mut self, level: Level, message: &str) {
        let line = truncate_to_single_line(message, MAX_LOG_LINE_CHARS);
        match self.job.log_lines.fetch_add(1, Ordering::Relaxed) {
            before if before < MAX_LOG_LINES => self.emit_to_tracing_and_component_log(level, line.clone()),
            MAX_LOG_LINES => self.emit_to_tracing_and_component_log(
                Level::Warn,
                format!(
                    "the job has written {MAX_LOG_LINES} log lines, the maximum; further lines are dropped"
                ),
            ),
            _ => {}
        }
        if level == Level::Error {
            self.last_error_line = Some(line);
        }
    }

    fn emit_to_tracing_and_component_log(&self, level: Level, line: String) {
        let (tenant, job, component) = (&self.job.tenant, &self.job.job, &self.component_name);
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
        self.job.capabilities.append_component_log(ComponentLogRecord {
            component: component.to_string(),
            function: self.function.into(),
            kind: ComponentLogRecordKind::Line { level, message: line },
        });
    }
}

/// Returns the first `chars` characters of a text, with a space for each control character.
///
/// A guest's text is shown in logs and terminals, where control characters could move the cursor or forge a line.
pub(crate) fn truncate_to_single_line(text: &str, chars: usize) -> String {
    let replace_control = |c: char| if c.is_control() { ' ' } else { c };
    let start = text.trim_start_matches(|c| replace_control(c).is_whitespace());
    let line: String = start.chars().take(chars).map(replace_control).collect();
    line.trim_end().to_owned()
}

impl ResourceLimiter for InstanceData {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let grown = desired.saturating_sub(current);
        let total = self.memory_bytes.saturating_add(grown);
        if total > self.max_memory_bytes {
            // The growth fails but the guest goes on: a garbage collector may free memory.
            self.was_denied_memory = true;
            return Ok(false);
        }
        self.memory_bytes = total;
        self.last_growth_bytes = grown;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        self.memory_bytes = self
            .memory_bytes
            .saturating_sub(std::mem::take(&mut self.last_growth_bytes));
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
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
    fn control_characters_become_spaces() {
        assert_eq!(truncate_to_single_line(" a\nb\u{1b}[2Jc\r ", 100), "a b [2Jc");
        assert_eq!(truncate_to_single_line("\u{1b}[2J\r\n", 100), "[2J");
        assert_eq!(truncate_to_single_line("äöü", 2), "äö");
    }
}
