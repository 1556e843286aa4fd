//! The task that asks the store of shared limits, and that records the ends of calls.
//!
//! Each provider has one. It handles one command at a time, so the end of a call is recorded before the next call is requested, and a call
//! whose outcome is unknown is withdrawn before that. It repeats what the store could not record, so no call is forgotten while
//! this process runs. If the process is killed, its calls end with its lease.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};
use weir_core::job_claim::NodeId;
use weir_core::provider_call_limits::{
    CallAdmission, MAX_ASK_INTERVAL, ProviderCallId, ProviderCallLimits, ProviderCallRequest,
    ProviderCallStore,
};

use crate::provider::ProviderEntry;
use crate::shared_admission::{
    AdmissionCommand, AdmissionObserver, AdmissionResult, CallTicket, SharedAdmission,
};

/// Time until the store is asked again, for each node that is ahead and for this one.
const ASK_INTERVAL_PER_NODE: Duration = Duration::from_millis(100);
/// Maximum time until the store is asked again for a place among the calls in flight, before jitter.
const MAX_QUEUED_ASK_INTERVAL: Duration = Duration::from_millis(200);
/// Time until the store is asked again by a node that has no lease yet.
const NO_LEASE_ASK_INTERVAL: Duration = Duration::from_millis(200);
/// Time until a store that failed is called again, before jitter.
const FAILED_STORE_DELAY: Duration = Duration::from_millis(500);

/// Maximum time in which the ends of the last calls are recorded when the router is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The store that keeps the limits of providers for all nodes, and the name of this node.
#[derive(Clone)]
pub struct SharedCallLimits {
    /// The store.
    pub store: Arc<dyn ProviderCallStore>,
    /// This node. Its record must be renewed elsewhere.
    pub node: NodeId,
}

/// What the store has to know about a call that was admitted.
#[derive(Clone, Copy)]
enum CallRecord {
    /// It has ended and has used this many tokens, if they are known.
    End(Option<u64>),
    /// It was not made.
    Withdrawal,
}

/// The admission workers of a router: one for each provider whose limits hold for all nodes.
#[derive(Default)]
pub(crate) struct AdmissionWorkers {
    not_started: Mutex<Vec<AdmissionWorker>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl AdmissionWorkers {
    /// Creates the workers, and the dispatcher's sides by the index of the provider.
    pub(crate) fn for_providers(
        providers: &[ProviderEntry],
        shared: &SharedCallLimits,
    ) -> (Self, Vec<(usize, SharedAdmission)>) {
        let (mut workers, mut admissions) = (Vec::new(), Vec::new());
        for (provider_index, entry) in providers.iter().enumerate() {
            let options = entry.options;
            if !options.has_shared_limits {
                continue;
            }
            let (sender, commands) = mpsc::unbounded_channel();
            admissions.push((
                provider_index,
                SharedAdmission::new(sender, options.tokens_per_minute),
            ));
            workers.push(AdmissionWorker {
                shared: shared.clone(),
                provider_name: entry.name.clone(),
                provider_index,
                limits: ProviderCallLimits {
                    max_concurrent: options.max_concurrency,
                    requests_per_minute: options.requests_per_minute,
                    tokens_per_minute: options.tokens_per_minute,
                },
                commands,
            });
        }
        let workers = Self {
            not_started: Mutex::new(workers),
            tasks: Mutex::default(),
        };
        (workers, admissions)
    }

    /// Starts the workers.
    pub(crate) fn start(&self, observer: &Arc<dyn AdmissionObserver>) {
        let workers = std::mem::take(&mut *self.not_started.lock());
        let tasks = workers
            .into_iter()
            .map(|worker| tokio::spawn(worker.run(Arc::downgrade(observer))));
        self.tasks.lock().extend(tasks);
    }

    /// Waits for some seconds until the workers have recorded the end of each call. The dispatcher's sides must be closed.
    pub(crate) async fn await_end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let aborts: Vec<AbortHandle> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let ended = timeout(CLOSE_TIMEOUT, async {
            for task in tasks {
                // A worker that panicked has recorded what it could.
                let _ = task.await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!(
                "the ends of some language model calls are not recorded: they end with the lease of this node"
            );
            aborts.iter().for_each(AbortHandle::abort);
        }
    }
}

struct AdmissionWorker {
    shared: SharedCallLimits,
    provider_name: String,
    provider_index: usize,
    limits: ProviderCallLimits,
    commands: mpsc::UnboundedReceiver<AdmissionCommand>,
}

impl AdmissionWorker {
    /// Handles commands until the dispatcher and all tickets are gone.
    async fn run(mut self, observer: Weak<dyn AdmissionObserver>) {
        while let Some(command) = self.commands.recv().await {
            match command {
                AdmissionCommand::Begin { tokens, commands } => {
                    let result = self.ask_store(&observer, tokens, commands).await;
                    if let Some(observer) = observer.upgrade() {
                        observer.record_admission(self.provider_index, result);
                    }
                }
                AdmissionCommand::End { call, used_tokens } => {
                    let record = CallRecord::End(used_tokens);
                    self.record_until_stored(&observer, call, record).await;
                }
                AdmissionCommand::Withdraw { call } => {
                    self.record_until_stored(&observer, call, CallRecord::Withdrawal)
                        .await;
                    self.count_admission("withdrawn");
                }
                AdmissionCommand::GiveUpTurn => {
                    let given_up = self
                        .shared
                        .store
                        .give_up_turn(&self.provider_name, &self.shared.node);
                    if let Err(error) = given_up.await {
                        // The turn ends by itself.
                        tracing::debug!(%error, "the turn of this node at a provider could not be given up");
                    }
                }
            }
        }
    }

    async fn ask_store(
        &self,
        observer: &Weak<dyn AdmissionObserver>,
        tokens: u64,
        commands: mpsc::UnboundedSender<AdmissionCommand>,
    ) -> AdmissionResult {
        let call = ProviderCallId::new_unique();
        let request = ProviderCallRequest {
            call,
            provider: self.provider_name.clone(),
            node: self.shared.node.clone(),
            limits: self.limits,
            estimated_tokens: tokens,
        };
        let requested_at = Instant::now();
        let (outcome, wait) = match self.shared.store.begin_call(&request).await {
            Ok(CallAdmission::Started) => {
                self.count_admission("started");
                return AdmissionResult::Granted(CallTicket::new(call, tokens, requested_at, commands));
            }
            // Nodes wait for the same time, so the jitter is added.
            Ok(CallAdmission::RetryAfter(wait)) => (
                "rate-limited",
                wait.min(MAX_ASK_INTERVAL)
                    + Duration::from_millis(1)
                    + with_jitter(Duration::from_millis(10)),
            ),
            Ok(CallAdmission::Queued { nodes_ahead }) => {
                let interval = ASK_INTERVAL_PER_NODE.saturating_mul(nodes_ahead.saturating_add(1));
                ("queued", with_jitter(interval.min(MAX_QUEUED_ASK_INTERVAL)))
            }
            Ok(CallAdmission::NodeNotAlive) => ("no-lease", with_jitter(NO_LEASE_ASK_INTERVAL)),
            Err(error) => {
                tracing::warn!(
                    provider = self.provider_name,
                    %error,
                    "the shared limits of a language model provider are not available: its requests wait"
                );
                self.record_until_stored(observer, call, CallRecord::Withdrawal)
                    .await;
                ("store-failed", Duration::ZERO)
            }
        };
        self.count_admission(outcome);
        AdmissionResult::AskAgainAfter(wait)
    }

    /// Records a change of a call. Repeats it until the store has it, or until the router is gone.
    async fn record_until_stored(
        &self,
        observer: &Weak<dyn AdmissionObserver>,
        call: ProviderCallId,
        record: CallRecord,
    ) {
        let store = &self.shared.store;
        let mut has_failed = false;
        loop {
            let stored = match record {
                CallRecord::End(used_tokens) => store.end_call(call, used_tokens).await,
                CallRecord::Withdrawal => store.withdraw_call(&self.provider_name, call).await,
            };
            let Err(error) = stored else { break };
            if !has_failed {
                tracing::warn!(
                    provider = self.provider_name,
                    %error,
                    "the end of a call to a language model provider could not be recorded yet"
                );
            }
            has_failed = true;
            if observer.strong_count() == 0 {
                return;
            }
            sleep(with_jitter(FAILED_STORE_DELAY)).await;
        }
        if has_failed {
            tracing::info!(
                provider = self.provider_name,
                "the shared limits of a language model provider are available again"
            );
        }
    }

    fn count_admission(&self, outcome: &'static str) {
        metrics::counter!(
            "weir_llm_call_admissions_total",
            "provider" => self.provider_name.clone(),
            "outcome" => outcome
        )
        .increment(1);
    }
}

/// Returns a random time between three and five quarters of `time`.
fn with_jitter(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}
