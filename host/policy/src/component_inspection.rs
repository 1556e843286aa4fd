//! Inspects a component before it is stored.
//!
//! The inspection compiles and links the component as a job does, instantiates it with every role that it exports, and calls
//! each role once. This finds faults that the types do not show: a start function that traps, a call that never returns, a
//! decision out of range. Capabilities are stubs that always fail. So a call that fails after it has used a capability does
//! not make the component fail the inspection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use weir_core::component::{ComponentInterface, ComponentValidator};
use weir_core::decision::{
    BatchContext, ComputeDevice, DocumentFacts, Heading, ObservedEvent, PageTextToSplit,
};
use weir_core::manifest::{
    Capability, ComponentFailurePolicy, Manifest, ResolvedComponentFile, ResolvedPipeline, Role,
};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::ports::{JobPolicy as _, OpenPolicyRequest};
use weir_core::{DocumentId, JobId, PageFacts, PolicyError, TenantId};

use crate::compiler::component_unusable_error;
use crate::host::PolicyHost;
use crate::linked_component::GrantedCapabilities;
use crate::unavailable_capabilities::UnavailableCapabilities;

/// Text of the sample page in the calls of an inspection.
const SAMPLE_PAGE_TEXT: &str =
    "1 Introduction\nA weir is a low wall across a river. It raises the water behind it, and lets it pass.";

#[async_trait]
impl ComponentValidator for PolicyHost {
    async fn inspect_component(
        &self,
        tenant: &TenantId,
        file: &ResolvedComponentFile,
    ) -> Result<ComponentInterface, PolicyError> {
        let linked = self
            .compile_and_link_component(file, GrantedCapabilities::new(&Capability::ALL), tenant)
            .await?;
        let facts = linked
            .component_interface()
            .map_err(|reason| component_unusable_error(file, reason))?;
        let mut manifest = Manifest::default_pipeline_manifest();
        manifest.capabilities.grant = facts.capabilities.clone();
        let components = facts.roles.iter().map(|role| (*role, file.clone())).collect();
        let pipeline = ResolvedPipeline::new(manifest, components, [].into());
        self.dry_run_pipeline(tenant, &pipeline).await?;
        Ok(facts)
    }

    async fn dry_run_pipeline(
        &self,
        tenant: &TenantId,
        pipeline: &ResolvedPipeline,
    ) -> Result<(), PolicyError> {
        // Without this setting, the fallback would hide the component's failures.
        let mut pipeline = pipeline.clone();
        pipeline.manifest.on_component_failure = ComponentFailurePolicy::Fail;
        let stub_capabilities = Arc::new(UnavailableCapabilities::default());
        let request = OpenPolicyRequest {
            tenant,
            job: JobId::new(),
            pipeline: &pipeline,
            capabilities: Arc::clone(&stub_capabilities) as _,
        };
        let state = Arc::new(MemoryComponentState::default());
        let job = self.open_job_with_state_and_writer(request, state, None).await?;
        for role in pipeline.components.keys() {
            stub_capabilities.was_called.store(false, Ordering::Relaxed);
            let result = match role {
                Role::Batching => job.plan_batch(sample_batch_context()).await.map(drop),
                Role::Routing => match job.route_document(sample_document_facts()).await {
                    Ok(_) => job
                        .route_page(&sample_document_id(), sample_page_facts())
                        .await
                        .map(drop),
                    Err(error) => Err(error),
                },
                Role::Chunking => job.split_passages(sample_passage_source()).await.map(drop),
                Role::Progress => job
                    .decide_progress_updates(0, sample_document_started_event())
                    .await
                    .map(drop),
            };
            match result {
                Err(error) if !stub_capabilities.was_called.load(Ordering::Relaxed) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn sample_document_id() -> DocumentId {
    DocumentId::from_content(SAMPLE_PAGE_TEXT.as_bytes())
}

fn sample_page_facts() -> PageFacts {
    PageFacts {
        number: 1,
        width: 595.0,
        height: 842.0,
        text_chars: u32::try_from(SAMPLE_PAGE_TEXT.len()).unwrap_or(0),
        image_coverage: 0.0,
        readable: true,
    }
}

fn sample_batch_context() -> BatchContext {
    BatchContext {
        document: sample_document_id(),
        total_pages: 1,
        remaining_pages: 1,
        next_pages: vec![sample_page_facts()],
        queues: Vec::new(),
        stage_timings: Vec::new(),
        device: ComputeDevice {
            cores: 1,
            ..ComputeDevice::default()
        },
        free_image_bytes: 64 << 20,
    }
}

fn sample_document_facts() -> DocumentFacts {
    DocumentFacts {
        document: sample_document_id(),
        name: "dry-run.pdf".into(),
        bytes: 10_000,
        pages: 1,
        title: None,
        outline_entries: 0,
        first_pages: vec![sample_page_facts()],
    }
}

fn sample_passage_source() -> PageTextToSplit {
    PageTextToSplit {
        document: sample_document_id(),
        page: 1,
        text: SAMPLE_PAGE_TEXT.into(),
        headings: vec![Heading {
            range: 0..14,
            level: 1,
        }],
        max_tokens: 256,
    }
}

fn sample_document_started_event() -> ObservedEvent {
    ObservedEvent::DocumentStarted {
        document: sample_document_id(),
        name: "dry-run.pdf".into(),
        pages: 1,
        already_done: 0,
    }
}
