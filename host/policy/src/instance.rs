//! A component's instance in a job: made, asked, thrown away, made again.
//!
//! The instance is taken out of its place for the length of a call and put back only when the call has returned. So
//! whatever ends a call early, be it a trap, a deadline or a caller that loses interest and drops the future, leaves the
//! place empty; the half-run instance is gone, and the next call gets a fresh one. Nothing has to remember to clean up.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use wasmtime::{PoolConcurrencyLimitError, Store};
use weir_core::PolicyError;
use weir_core::manifest::{ComponentFile, Role};
use weir_core::said::FailureReport;

use crate::bindings::{batching, chunking, progress, routing};
use crate::failure::{Explained, Failed};
use crate::guest::{Guest, JobContext, START};
use crate::heard::{Ear, Heard};
use crate::job::note;
use crate::link::Linked;
use crate::report::{asked, hex};
use crate::roles::Decision;
use crate::stats::{HostMeter, JobMeter};

/// How long a call may take on the clock, with all it waits for: a component that asks a language model may wait for its
/// answer, but not forever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Handles of resources that an instance may hold at one time. An interpreter holds a handful.
pub(crate) const HANDLES: usize = 1024;

/// Limits of a component's calls in one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// Milliseconds of CPU a call may take.
    pub(crate) millis: u32,
    /// Bytes of memory.
    pub(crate) memory_bytes: usize,
    /// Bytes handed over in one call.
    pub(crate) output_bytes: usize,
}

/// An instance that can be called.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    pub(crate) roles: Roles,
}

/// The functions of the roles it was made for.
pub(crate) struct Roles {
    pub(crate) batching: Option<batching::Guest>,
    pub(crate) routing: Option<routing::Guest>,
    pub(crate) chunking: Option<chunking::Guest>,
    pub(crate) progress: Option<progress::Guest>,
}

/// A component's place in a job.
pub(crate) struct Seat {
    name: Arc<str>,
    /// SHA-256 of the component.
    digest: [u8; 32],
    linked: Arc<Linked>,
    roles: Vec<Role>,
    limits: CallLimits,
    context: Arc<JobContext>,
    host: Arc<HostMeter>,
    live: Mutex<Option<Box<Live>>>,
    turns: AtomicU32,
}

/// What came of asking.
pub(crate) struct Asked<A> {
    pub(crate) answer: Result<A, PolicyError>,
    /// How long it took, with what it waited for.
    pub(crate) took: Duration,
    /// Its place among the calls of this instance and those before it, which is the order in which they were answered.
    pub(crate) turn: u32,
    /// What capabilities answered.
    pub(crate) heard: Vec<Heard>,
    /// Questions to capabilities that had no answer, of a call that was had again.
    pub(crate) missed: u32,
}

impl Seat {
    pub(crate) fn new(
        file: &ComponentFile,
        linked: Arc<Linked>,
        roles: Vec<Role>,
        limits: CallLimits,
        context: Arc<JobContext>,
        host: Arc<HostMeter>,
    ) -> Self {
        Self {
            name: Arc::from(file.name.as_str()),
            digest: file.digest,
            linked,
            roles,
            limits,
            context,
            host,
            live: Mutex::new(None),
            turns: AtomicU32::new(0),
        }
    }

    /// Makes the instance before it is asked anything.
    pub(crate) async fn fill(&self, meter: &JobMeter) -> Result<(), PolicyError> {
        let mut place = self.live.lock().await;
        if place.is_none() {
            *place = Some(self.make(0, meter).await?);
        }
        Ok(())
    }

    /// Asks for a decision. What capabilities answer goes to `ear`, or comes from there.
    pub(crate) async fn ask<D: Decision>(
        &self,
        question: &D,
        meter: &JobMeter,
        ear: Ear,
    ) -> Asked<D::Answer> {
        let mut place = self.live.lock().await;
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let mut live = match place.take() {
            Some(live) => live,
            None => match self.make(turn, meter).await {
                Ok(live) => live,
                Err(error) => {
                    self.host.measures.failed(D::ROLE, &error);
                    return Asked {
                        answer: Err(error),
                        took: Duration::ZERO,
                        turn,
                        heard: Vec::new(),
                        missed: 0,
                    };
                }
            },
        };
        live.store.data_mut().begin(D::FUNCTION, self.limits.millis);
        live.store.data_mut().ear = ear;
        live.store.set_epoch_deadline(1);
        let started = Instant::now();
        let said = patiently(pin!(question.ask(&mut live))).await;
        let took = started.elapsed();
        let (waited, idle) = (live.store.data().waited(), live.store.data().turn.idle());
        let (heard, missed) = live.store.data_mut().ear.take();
        let ran = took.saturating_sub(waited + idle);
        meter.called(ran, waited);
        self.host.measures.called(D::ROLE, ran.as_secs_f64());
        let answer = match said {
            Ok(said) => {
                *place = Some(live);
                drop(place);
                question.check(said).map_err(|reason| {
                    meter.nonsense();
                    Explained::plainly(PolicyError::Nonsense {
                        component: self.name.to_string(),
                        function: D::FUNCTION,
                        reason,
                    })
                })
            }
            Err(stopped) => {
                let explained = self.explain(D::FUNCTION, &stopped, live.store.data_mut());
                meter.trapped(&explained.error);
                Err(explained)
            }
        };
        let answer = answer.map_err(|explained| {
            self.host.measures.failed(D::ROLE, &explained.error);
            self.report(D::FUNCTION, turn, || asked(question), explained)
        });
        Asked {
            answer,
            took,
            turn,
            heard,
            missed,
        }
    }

    /// Throws the instance away.
    pub(crate) async fn forget(&self) {
        *self.live.lock().await = None;
    }

    /// Tells the tenant of a call that failed.
    fn report(
        &self,
        function: &'static str,
        turn: u32,
        question: impl FnOnce() -> Option<String>,
        explained: Explained,
    ) -> PolicyError {
        let Explained {
            error,
            said,
            backtrace,
        } = explained;
        self.context.report(&self.name, function, || FailureReport {
            error: note(&error),
            version: hex(&self.digest),
            turn,
            question: question(),
            limit: error.limit(),
            said,
            backtrace,
        });
        error
    }

    async fn make(&self, turn: u32, meter: &JobMeter) -> Result<Box<Live>, PolicyError> {
        let guest = Guest::new(
            Arc::clone(&self.context),
            Arc::clone(&self.name),
            self.limits.memory_bytes,
        );
        let mut store = Store::new(self.linked.instance.engine(), guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(self.limits.output_bytes);
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().tick()));
        store.data_mut().begin(START, self.limits.millis);
        store.set_epoch_deadline(1);
        let began = Instant::now();
        let started = patiently(pin!(self.start(&mut store))).await;
        // A component can have much to do before it is asked anything.
        let (waited, idle) = (store.data().waited(), store.data().turn.idle());
        meter.ran(began.elapsed().saturating_sub(waited + idle), waited);
        match started {
            Ok(roles) => {
                self.host.instantiated();
                Ok(Box::new(Live { store, roles }))
            }
            Err(Stopped::Error(error)) if error.is::<PoolConcurrencyLimitError>() => {
                Err(PolicyError::Exhausted {
                    reason: error.root_cause().to_string(),
                })
            }
            // Neither a trap nor a limit of ours: the component is not what its types say, or is too large for the pool.
            Err(Stopped::Error(error))
                if !error.is::<wasmtime::Trap>() && !store.data().was_denied_memory() =>
            {
                Err(PolicyError::Unusable {
                    component: self.name.to_string(),
                    reason: format!("{error:#}").replace('\n', " "),
                })
            }
            Err(stopped) => {
                let explained = self.explain(START, &stopped, store.data_mut());
                Err(self.report(START, turn, || None, explained))
            }
        }
    }

    async fn start(&self, store: &mut Store<Guest>) -> wasmtime::Result<Roles> {
        let linked = &self.linked;
        let instance = linked.instance.instantiate_async(&mut *store).await?;
        let has = |role| self.roles.contains(&role);
        Ok(Roles {
            batching: match &linked.batching {
                Some(role) if has(Role::Batching) => Some(role.load(&mut *store, &instance)?),
                _ => None,
            },
            routing: match &linked.routing {
                Some(role) if has(Role::Routing) => Some(role.load(&mut *store, &instance)?),
                _ => None,
            },
            chunking: match &linked.chunking {
                Some(role) if has(Role::Chunking) => Some(role.load(&mut *store, &instance)?),
                _ => None,
            },
            progress: match &linked.progress {
                Some(role) if has(Role::Progress) => Some(role.load(&mut *store, &instance)?),
                _ => None,
            },
        })
    }

    fn explain(&self, function: &'static str, stopped: &Stopped, guest: &mut Guest) -> Explained {
        match stopped {
            Stopped::Error(error) => Failed {
                function,
                millis: self.limits.millis,
                output_bytes: self.limits.output_bytes,
            }
            .explain(error, guest),
            Stopped::Impatience => Explained::plainly(PolicyError::Deadline {
                component: self.name.to_string(),
                function,
                millis: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

/// Why a call did not return.
enum Stopped {
    Error(wasmtime::Error),
    Impatience,
}

/// Waits for a call, for a limited time. Nearly every call is over when it is first polled, so only one that is not pays
/// for a timer.
async fn patiently<T>(mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>) -> Result<T, Stopped> {
    match futures::poll!(call.as_mut()) {
        Poll::Ready(said) => said.map_err(Stopped::Error),
        Poll::Pending => match tokio::time::timeout(PATIENCE, call).await {
            Ok(said) => said.map_err(Stopped::Error),
            Err(_) => Err(Stopped::Impatience),
        },
    }
}
