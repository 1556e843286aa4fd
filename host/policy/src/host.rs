//! The adapter: opens the components of a job.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use weir_core::manifest::{ComponentFile, OnTrap, Role};
use weir_core::ports::{JobPolicy, Policies, PolicyRequest, PolicyState};
use weir_core::{JobId, PolicyError, StorageError, TenantId};

use crate::aside::Aside;
use crate::compiler::{Compiler, unusable};
use crate::config::PolicyConfig;
use crate::engine;
use crate::guest::JobContext;
use crate::house::{House, OpenJob};
use crate::instance::Seat;
use crate::job::{Assigned, Job};
use crate::library::Library;
use crate::link::{Granted, Linked};
use crate::live::CallLimits;
use crate::recording::{self, Component, Opened, Recorder, Retention, Writer};
use crate::stats::{HostMeter, HostStats, JobMeter};
use crate::ticker::Ticker;

/// How far a manifest may raise the deadline of a call above the host's.
const RAISE: u32 = 20;

/// Tenants' components behind the port [`Policies`]. One for each process: it owns the pool that instances come from.
pub struct PolicyHost {
    house: Arc<House>,
}

/// A component a job needs, with the roles it has there.
struct Wanted<'a> {
    file: &'a ComponentFile,
    roles: Vec<Role>,
    /// Only if another fails.
    stands_in: bool,
}

impl PolicyHost {
    /// Reserves the pool's address space, makes the folders private and starts the threads that tick and write. To be called
    /// after the recorder of metrics has been installed, if there is to be one.
    pub fn new(config: PolicyConfig) -> Result<Arc<Self>, PolicyError> {
        let broken = |what: &str, reason: &dyn std::fmt::Display| PolicyError::Exhausted {
            reason: format!("{what}: {reason}"),
        };
        let engine = engine::running(config.instances).map_err(|e| {
            broken(
                "the pool for policy.instances cannot be reserved",
                &format!("{e:#}"),
            )
        })?;
        let meter = Arc::new(HostMeter::new());
        let compiler = Compiler::new(&config, engine.clone(), Arc::clone(&meter))?;
        let start = |what, e: std::io::Error| broken(what, &e);
        Ok(Arc::new(Self {
            house: Arc::new(House {
                library: Library::new(engine.clone(), compiler, config.loaded_components),
                places: Arc::new(Semaphore::new(config.instances as usize)),
                instances: config.instances,
                limits: CallLimits {
                    millis: config.call_millis,
                    memory_bytes: memory(config.memory_bytes),
                    output_bytes: usize::try_from(config.output_bytes).unwrap_or(usize::MAX),
                },
                state: config.state,
                meter,
                told: config.meter,
                ticker: Ticker::start(engine).map_err(|e| start("the epoch thread cannot be started", e))?,
                aside: Aside::start().map_err(|e| start("the threads of long calls cannot be started", e))?,
                writer: match config.recordings {
                    Some(folder) => Some(
                        Writer::start(folder, config.retention)
                            .map_err(|e| start("calls cannot be recorded", e))?,
                    ),
                    None => None,
                },
                record: config.record,
            }),
        }))
    }

    /// A component, linked with these rights, and compiled on a tenant's account.
    pub(crate) async fn linked(
        &self,
        file: &ComponentFile,
        granted: Granted,
        payer: &TenantId,
    ) -> Result<Arc<Linked>, PolicyError> {
        self.house.library.get(file, granted, Some(payer)).await
    }

    /// What has been done so far.
    pub fn stats(&self) -> HostStats {
        self.house
            .meter
            .read(self.house.places.available_permits(), self.house.library.len())
    }

    /// Where the calls of jobs are and how long they are kept, if they are recorded.
    pub(crate) fn recordings(&self) -> Option<(PathBuf, Retention)> {
        let writer = self.house.writer.as_ref()?;
        Some((writer.folder().to_owned(), writer.retention()))
    }

    /// Returns when the calls of every job that has been dropped are in their files.
    pub async fn flush_recordings(&self) {
        if let Some(writer) = &self.house.writer {
            writer.flush().await;
        }
    }

    /// Removes the recordings of these jobs, or all of the tenant's.
    pub(crate) async fn remove_from_recordings(
        &self,
        tenant: &TenantId,
        jobs: Option<&[JobId]>,
    ) -> Result<(), StorageError> {
        let Some(writer) = &self.house.writer else {
            return Ok(());
        };
        let removed = writer.remove(tenant, jobs).await;
        removed.map_err(|error| StorageError::io(writer.folder().display().to_string(), &error))
    }

    /// Instances for one job. As [`Policies::open`], but the job can be asked for its [`stats`](Job::stats).
    pub async fn open_job(&self, request: PolicyRequest<'_>) -> Result<Arc<Job>, PolicyError> {
        let state = Arc::clone(&self.house.state);
        let writer = self.house.writer.as_ref().filter(|_| self.house.record);
        self.open_with(request, state, writer).await
    }

    /// The same, with this for what components remember, and recorded only by this.
    pub(crate) async fn open_with(
        &self,
        request: PolicyRequest<'_>,
        state: Arc<dyn PolicyState>,
        writer: Option<&Writer>,
    ) -> Result<Arc<Job>, PolicyError> {
        let house = &self.house;
        let manifest = &request.pipeline.manifest;
        let granted = Granted::new(&manifest.capabilities.grant);
        let (wanted, roles) = assign(&request);

        // Components first, places second: a place is not held while something compiles.
        let mut linked = Vec::with_capacity(wanted.len());
        for want in &wanted {
            let component = house.library.get(want.file, granted, None).await?;
            for role in &want.roles {
                component
                    .require(*role)
                    .map_err(|reason| unusable(want.file, reason))?;
            }
            linked.push(component);
        }
        // All places at once, since two jobs that each held half of theirs would wait for one another.
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if count > house.instances {
            return Err(PolicyError::Exhausted {
                reason: format!(
                    "the job needs {count} and policy.instances allows {} on the whole host",
                    house.instances
                ),
            });
        }
        let places = Arc::clone(&house.places)
            .acquire_many_owned(count)
            .await
            .map_err(|e| PolicyError::Exhausted {
                reason: e.to_string(),
            })?;
        let open = Arc::new(OpenJob::new(house, places));

        let context = Arc::new(JobContext::new(
            request.tenant.clone(),
            request.job,
            manifest.clone(),
            request.capabilities.clone(),
            state,
        ));
        let limits = CallLimits {
            millis: manifest.limits.call_millis.map_or(house.limits.millis, |m| {
                m.min(house.limits.millis.saturating_mul(RAISE))
            }),
            memory_bytes: manifest
                .limits
                .memory_bytes
                .map_or(house.limits.memory_bytes, memory),
            ..house.limits
        };
        let recorder = writer.map(|writer| Recorder::new(writer, opened(&request, &wanted, &roles)));
        let meter = JobMeter::new(request.tenant.clone(), house.told.clone());
        let mut seats = Vec::with_capacity(wanted.len());
        for (want, linked) in wanted.iter().zip(linked) {
            let seat = Seat::new(
                want.file,
                linked,
                want.roles.clone(),
                limits,
                Arc::clone(&context),
                Arc::clone(&open),
            );
            if !want.stands_in {
                seat.fill(&meter).await?;
            }
            seats.push(seat);
        }
        Ok(Arc::new(Job {
            seats,
            roles,
            context,
            recorder,
            meter,
            _open: open,
        }))
    }
}

fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(engine::MEMORY_BYTES, |b| b.min(engine::MEMORY_BYTES))
}

/// Which components the job needs, each once, and who decides in which role.
fn assign<'a>(request: &PolicyRequest<'a>) -> (Vec<Wanted<'a>>, [Assigned; Role::ALL.len()]) {
    let pipeline = request.pipeline;
    let mut wanted: Vec<Wanted<'a>> = Vec::with_capacity(Role::ALL.len());
    let mut roles = [Assigned::default(); Role::ALL.len()];
    let mut seat = |file: &'a ComponentFile, role: Role, stands_in: bool| {
        let found = wanted
            .iter_mut()
            .enumerate()
            .find(|(_, want)| want.file.digest == file.digest);
        if let Some((index, want)) = found {
            if !want.roles.contains(&role) {
                want.roles.push(role);
            }
            want.stands_in &= stands_in;
            return index;
        }
        wanted.push(Wanted {
            file,
            roles: vec![role],
            stands_in,
        });
        wanted.len() - 1
    };
    for (role, assigned) in Role::ALL.into_iter().zip(&mut roles) {
        assigned.first = pipeline.components.get(&role).map(|file| seat(file, role, false));
    }
    if pipeline.manifest.on_trap == OnTrap::Default {
        for (role, assigned) in Role::ALL.into_iter().zip(&mut roles) {
            assigned.stand_in = pipeline
                .defaults
                .get(&role)
                .map(|file| seat(file, role, true))
                .filter(|index| Some(*index) != assigned.first);
        }
    }
    (wanted, roles)
}

fn opened(request: &PolicyRequest<'_>, wanted: &[Wanted<'_>], roles: &[Assigned; Role::ALL.len()]) -> Opened {
    let place = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
    let assigned = Role::ALL.into_iter().zip(roles).filter_map(|(role, assigned)| {
        Some(recording::Assigned {
            role,
            first: place(assigned.first?),
            stand_in: assigned.stand_in.map(place),
        })
    });
    let manifest = &request.pipeline.manifest;
    Opened {
        tenant: request.tenant.clone(),
        job: request.job,
        pipeline: manifest.name.clone(),
        revision: request.pipeline.revision,
        settings: manifest
            .settings
            .keys()
            .filter_map(|name| Some((name.clone(), manifest.setting(name)?)))
            .collect(),
        components: wanted
            .iter()
            .map(|want| Component {
                name: want.file.name.clone(),
                digest: want.file.digest,
            })
            .collect(),
        assigned: assigned.collect(),
        grants: manifest.capabilities.grant.clone(),
        limits: manifest.limits,
    }
}

#[async_trait]
impl Policies for PolicyHost {
    async fn open(&self, request: PolicyRequest<'_>) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        let job = self.open_job(request).await?;
        Ok(job)
    }
}
