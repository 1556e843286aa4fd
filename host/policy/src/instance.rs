//! A component's instance in a job: made, asked, thrown away, made again.
//!
//! The instance is taken out of its place for the length of a call and put back only when the call has returned. So
//! whatever ends a call early, be it a trap, a deadline or a caller that loses interest and drops the future, leaves the
//! place empty; the half-run instance is gone, and the next call gets a fresh one. Nothing has to remember to clean up.
//! The place stays taken until that instance is gone indeed, which for a call that went on [aside](crate::aside) can be a
//! moment after its caller.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;
use wasmtime::{PoolConcurrencyLimitError, Store};
use weir_core::PolicyError;
use weir_core::manifest::{ComponentFile, Role};
use weir_core::said::FailureReport;
use weir_core::state::StateChange;

use crate::failure::{Explained, Failed, note};
use crate::guest::{Guest, JobContext, PATIENCE, START};
use crate::heard::{Ear, Heard};
use crate::house::OpenJob;
use crate::link::Linked;
use crate::live::{CallLimits, HANDLES, Live, Roles};
use crate::report::{asked, hex};
use crate::roles::Decision;
use crate::stats::JobMeter;
use crate::turn::Clock;

/// A component's place in a job.
pub(crate) struct Seat {
    name: Arc<str>,
    /// SHA-256 of the component.
    digest: [u8; 32],
    linked: Arc<Linked>,
    roles: Vec<Role>,
    limits: CallLimits,
    context: Arc<JobContext>,
    open: Arc<OpenJob>,
    live: Arc<Mutex<Option<Box<Live>>>>,
    turns: AtomicU32,
}

/// The place of an instance, which is the holder's for the length of a call.
type Place = OwnedMutexGuard<Option<Box<Live>>>;

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
        open: Arc<OpenJob>,
    ) -> Self {
        Self {
            name: Arc::from(file.name.as_str()),
            digest: file.digest,
            linked,
            roles,
            limits,
            context,
            open,
            live: Arc::default(),
            turns: AtomicU32::new(0),
        }
    }

    /// Makes the instance before it is asked anything.
    pub(crate) async fn fill(&self, meter: &JobMeter) -> Result<(), PolicyError> {
        let place = self.place().await;
        if place.is_none() {
            let (mut place, made) = self.make(place, 0, meter).await;
            *place = Some(made?);
        }
        Ok(())
    }

    async fn place(&self) -> Place {
        Arc::clone(&self.live).lock_owned().await
    }

    /// Asks for a decision. What capabilities answer goes to `ear`, or comes from there.
    pub(crate) async fn ask<D: Decision>(
        &self,
        question: &Arc<D>,
        meter: &JobMeter,
        ear: Ear,
    ) -> Asked<D::Answer> {
        let measures = &self.open.meter().measures;
        let mut place = self.place().await;
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let (place, live) = match place.take() {
            Some(live) => (place, Ok(live)),
            None => self.make(place, turn, meter).await,
        };
        let mut live = match live {
            Ok(live) => live,
            Err(error) => {
                measures.failed(D::ROLE, &error);
                return Asked {
                    answer: Err(error),
                    took: Duration::ZERO,
                    turn,
                    heard: Vec::new(),
                    missed: 0,
                };
            }
        };
        live.store.data_mut().begin(D::FUNCTION, self.limits.millis);
        live.store.data_mut().ear = ear;
        live.store.set_epoch_deadline(1);
        let started = Instant::now();
        let clock = live.store.data().turn.clock();
        let asking = Arc::clone(question);
        let call = self.run(place, clock, async move {
            let said = asking.ask(&mut live).await;
            live.store.data_mut().turn.pause();
            (live, said)
        });
        let (mut place, (mut live, said)) = call.await;
        let took = started.elapsed();
        let (ran, waited) = live.store.data().ran(took);
        let (heard, missed) = live.store.data_mut().ear.take();
        meter.called(ran, waited);
        measures.called(D::ROLE, ran.as_secs_f64());
        let answer = match said {
            Ok(said) => {
                let pending = Arc::clone(&live.store.data().pending_state);
                let changes = pending.lock().await.take();
                let answer = match question.check(said) {
                    // The next call of this instance sees what this one wrote, so it does not begin before.
                    Ok(answer) => {
                        let kept = self.keep_state(D::FUNCTION, changes).await;
                        kept.map(|()| answer).inspect_err(|error| meter.trapped(error))
                    }
                    Err(reason) => {
                        meter.nonsense();
                        Err(PolicyError::Nonsense {
                            component: self.name.to_string(),
                            function: D::FUNCTION,
                            reason,
                        })
                    }
                };
                *place = Some(live);
                drop(place);
                answer.map_err(Explained::plainly)
            }
            Err(error) => {
                let explained = self.explain(D::FUNCTION, &error, live.store.data_mut());
                meter.trapped(&explained.error);
                Err(explained)
            }
        };
        let answer = answer.map_err(|explained| {
            measures.failed(D::ROLE, &explained.error);
            self.report(D::FUNCTION, turn, || asked(&**question), explained)
        });
        Asked {
            answer,
            took,
            turn,
            heard,
            missed,
        }
    }

    /// Keeps what a call wrote, as one change. A call whose writes cannot be kept has failed: it was told that they would be.
    async fn keep_state(&self, function: &'static str, changes: Vec<StateChange>) -> Result<(), PolicyError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (context, component) = (&self.context, self.name.to_string());
        let applied = context
            .state
            .apply(&context.tenant, &context.manifest.name, changes);
        match timeout(PATIENCE, applied).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(PolicyError::Trap {
                component,
                function,
                reason: format!("its state could not be written: {}", refused.message),
            }),
            Err(_) => Err(PolicyError::Deadline {
                component,
                function,
                millis: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Throws the instance away.
    pub(crate) async fn forget(&self) {
        *self.live.lock().await = None;
    }

    /// Runs a call to its end. Until it has ended, be its caller there or not, its place is taken and its job counts as open,
    /// or nothing would tick that could end it.
    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        clock: Arc<Clock>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> (Place, T) {
        let open = Arc::clone(&self.open);
        let call = async move {
            let said = call.await;
            drop(open);
            (place, said)
        };
        self.open.aside().run(clock, call).await
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

    async fn make(
        &self,
        place: Place,
        turn: u32,
        meter: &JobMeter,
    ) -> (Place, Result<Box<Live>, PolicyError>) {
        let guest = Guest::new(
            Arc::clone(&self.context),
            Arc::clone(&self.name),
            self.limits.memory_bytes,
        );
        let linked = Arc::clone(&self.linked);
        let mut store = Store::new(linked.instance.engine(), guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(self.limits.output_bytes);
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().tick()));
        store.data_mut().begin(START, self.limits.millis);
        store.set_epoch_deadline(1);
        let began = Instant::now();
        let (clock, roles) = (store.data().turn.clock(), self.roles.clone());
        let call = self.run(place, clock, async move {
            let started = start(&linked, &roles, &mut store).await;
            store.data_mut().turn.pause();
            (store, started)
        });
        let (place, (store, started)) = call.await;
        // A component can have much to do before it is asked anything.
        let (ran, waited) = store.data().ran(began.elapsed());
        meter.ran(ran, waited);
        (place, self.started(store, started, turn))
    }

    fn started(
        &self,
        mut store: Store<Guest>,
        started: wasmtime::Result<Roles>,
        turn: u32,
    ) -> Result<Box<Live>, PolicyError> {
        match started {
            Ok(roles) => {
                self.open.meter().instantiated();
                Ok(Box::new(Live { store, roles }))
            }
            Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(PolicyError::Exhausted {
                reason: error.root_cause().to_string(),
            }),
            // Neither a trap nor a limit of ours: the component is not what its types say, or is too large for the pool.
            Err(error) if !error.is::<wasmtime::Trap>() && !store.data().was_denied_memory() => {
                Err(PolicyError::Unusable {
                    component: self.name.to_string(),
                    reason: format!("{error:#}").replace('\n', " "),
                })
            }
            Err(error) => {
                let explained = self.explain(START, &error, store.data_mut());
                Err(self.report(START, turn, || None, explained))
            }
        }
    }

    fn explain(&self, function: &'static str, error: &wasmtime::Error, guest: &mut Guest) -> Explained {
        Failed {
            function,
            millis: self.limits.millis,
            output_bytes: self.limits.output_bytes,
        }
        .explain(error, guest)
    }
}

/// Makes an instance and looks up the functions of its roles.
async fn start(linked: &Linked, roles: &[Role], store: &mut Store<Guest>) -> wasmtime::Result<Roles> {
    let instance = linked.instance.instantiate_async(&mut *store).await?;
    let has = |role| roles.contains(&role);
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
