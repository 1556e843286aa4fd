//! What a component has to show before it is let in.
//!
//! It is compiled where everything is compiled, linked as a job would link it, instantiated with every role it exports, and
//! asked once in each. That finds what types alone do not: a start function that traps, a call that never returns, an answer
//! outside its range. A capability has nothing behind it here, so a call that fails after having asked for one says nothing
//! about the component, and does not count against it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::component::{ComponentFacts, Gate};
use weir_core::decision::{Device, DocumentFacts, Heading, Observation, PassageSource, Situation};
use weir_core::event::ErrorNote;
use weir_core::manifest::{Capability, ComponentFile, Manifest, OnTrap, Pipeline, Role};
use weir_core::ports::{Capabilities, JobPolicy as _, PolicyRequest, PolicyState};
use weir_core::said::Remark;
use weir_core::state::{StateChange, StateSizes};
use weir_core::{DocumentId, JobId, PageFacts, PageNumber, PolicyError, Rect, TenantId};

use crate::compiler::unusable;
use crate::host::PolicyHost;
use crate::link::Granted;

/// The page a component is asked about.
const PAGE: &str =
    "1 Introduction\nA weir is a low wall across a river. It raises the water behind it, and lets it pass.";

#[async_trait]
impl Gate for PolicyHost {
    async fn inspect(&self, tenant: &TenantId, file: &ComponentFile) -> Result<ComponentFacts, PolicyError> {
        let linked = self.linked(file, Granted::new(&Capability::ALL), tenant).await?;
        let facts = linked.facts().map_err(|reason| unusable(file, reason))?;
        let mut manifest = Manifest::embedded();
        manifest.capabilities.grant = facts.capabilities.clone();
        let all = facts.roles.iter().map(|role| (*role, file.clone())).collect();
        let pipeline = Pipeline::new(manifest, all, [].into());
        self.rehearse(tenant, &pipeline).await?;
        Ok(facts)
    }

    async fn rehearse(&self, tenant: &TenantId, pipeline: &Pipeline) -> Result<(), PolicyError> {
        // What the defaults would mend is what is to be found.
        let mut pipeline = pipeline.clone();
        pipeline.manifest.on_trap = OnTrap::Fail;
        let empty = Arc::new(Empty::default());
        let request = PolicyRequest {
            tenant,
            job: JobId::new(),
            pipeline: &pipeline,
            capabilities: Arc::clone(&empty) as _,
        };
        let job = self.open_with(request, Arc::clone(&empty) as _, None).await?;
        for role in pipeline.components.keys() {
            empty.asked.store(false, Ordering::Relaxed);
            let answered = match role {
                Role::Batching => job.plan(situation()).await.map(drop),
                Role::Routing => match job.route_document(document()).await {
                    Ok(_) => job.route_page(&of(), page()).await.map(drop),
                    Err(error) => Err(error),
                },
                Role::Chunking => job.passages(text()).await.map(drop),
                Role::Progress => job.observe(0, started()).await.map(drop),
            };
            match answered {
                Err(error) if !empty.asked.load(Ordering::Relaxed) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn of() -> DocumentId {
    DocumentId::of(PAGE.as_bytes())
}

fn page() -> PageFacts {
    PageFacts {
        number: 1,
        width: 595.0,
        height: 842.0,
        text_chars: u32::try_from(PAGE.len()).unwrap_or(0),
        image_coverage: 0.0,
        readable: true,
    }
}

fn situation() -> Situation {
    Situation {
        document: of(),
        total_pages: 1,
        remaining_pages: 1,
        next: vec![page()],
        queues: Vec::new(),
        times: Vec::new(),
        device: Device {
            cores: 1,
            ..Device::default()
        },
        free_image_bytes: 64 << 20,
    }
}

fn document() -> DocumentFacts {
    DocumentFacts {
        document: of(),
        name: "rehearsal.pdf".into(),
        bytes: 10_000,
        pages: 1,
        title: None,
        outline_entries: 0,
        first_pages: vec![page()],
    }
}

fn text() -> PassageSource {
    PassageSource {
        document: of(),
        page: 1,
        text: PAGE.into(),
        headings: vec![Heading { at: 0..14, level: 1 }],
        max_tokens: 256,
    }
}

fn started() -> Observation {
    Observation::DocumentStarted {
        document: of(),
        name: "rehearsal.pdf".into(),
        pages: 1,
        already_done: 0,
    }
}

/// Capabilities with nothing behind them, and a state that is forgotten.
#[derive(Default)]
pub(crate) struct Empty {
    asked: AtomicBool,
    state: Mutex<HashMap<String, Vec<u8>>>,
}

impl Empty {
    fn nothing<T>(&self) -> Result<T, ErrorNote> {
        self.asked.store(true, Ordering::Relaxed);
        Err(ErrorNote {
            kind: "unavailable".into(),
            message: "this is a rehearsal, without documents and models".into(),
        })
    }
}

#[async_trait]
impl Capabilities for Empty {
    async fn preview(&self, _: &DocumentId, _: PageNumber, _: u32) -> Result<(u32, u32, Vec<u8>), ErrorNote> {
        self.nothing()
    }

    async fn page_text(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorNote> {
        self.nothing()
    }

    async fn count_tokens(&self, _: &str) -> Result<u32, ErrorNote> {
        self.nothing()
    }

    async fn embed(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote> {
        self.nothing()
    }

    async fn recognize(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorNote> {
        self.nothing()
    }

    async fn generate(&self, _: &str, _: u32) -> Result<String, ErrorNote> {
        self.nothing()
    }

    fn policy_failed(&self, _: &PolicyError) {}
    fn said(&self, _: Remark) {}
}

#[async_trait]
impl PolicyState for Empty {
    async fn get(&self, _: &TenantId, _: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        Ok(self.state.lock().get(key).cloned())
    }

    async fn sizes(&self, _: &TenantId, _: &str) -> Result<StateSizes, ErrorNote> {
        let state = self.state.lock();
        Ok(state
            .iter()
            .map(|(key, value)| (key.clone(), value.len()))
            .collect())
    }

    async fn apply(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorNote> {
        let mut sizes = self.sizes(tenant, pipeline).await?;
        sizes.change_all(&changes)?;
        let mut state = self.state.lock();
        for StateChange { key, value } in changes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        Ok(())
    }
}
