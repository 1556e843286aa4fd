//! Records that suites and tests of stores write. Suites use unique names, so that they can check a store that already has data.

use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::component::ComponentsByRole;
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{JobRequest, JobRequestOptions, RequestedFile};
use weir_core::ledger::{DocumentRecord, JobRecord, JobState};
use weir_core::manifest::Manifest;
use weir_core::retention::RetentionPeriods;
use weir_core::revision::RevisionSpec;
use weir_core::tenancy::{ApiKeyRecord, KeyScope, Quotas, Tenant, TenantState};
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

/// Returns a name that no other record has.
pub(crate) fn unique_name(prefix: &str) -> String {
    format!("{prefix}-{}", JobId::new())
}

pub(crate) fn unique_tenant_id(prefix: &str) -> TenantId {
    unique_name(prefix).parse().unwrap()
}

/// Returns an active tenant of weight 1.5 with a quota of three concurrent jobs.
pub fn make_tenant(id: &TenantId) -> Tenant {
    Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.5,
        quotas: Quotas {
            concurrent_jobs: Some(3),
            ..Quotas::default()
        },
        retention: RetentionPeriods {
            usage_days: Some(90),
            ..RetentionPeriods::default()
        },
        created_millis: 1,
    }
}

/// Returns a key that may ingest and read, and that expires at 99.
pub fn make_api_key(tenant: &TenantId, id: &str, created_millis: u64) -> ApiKeyRecord {
    ApiKeyRecord {
        id: id.to_owned(),
        tenant: tenant.clone(),
        scopes: vec![KeyScope::Ingest, KeyScope::Read],
        secret_digest: [7; 32],
        display_name: "a key".into(),
        created_millis,
        expires_millis: Some(99),
        revoked_millis: None,
    }
}

/// Returns a job with a new id.
pub fn make_job(tenant: &TenantId, state: JobState, created_millis: u64) -> JobRecord {
    JobRecord {
        id: JobId::new(),
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: RevisionId::from_content(b"r"),
        state,
        created_millis,
    }
}

/// Returns a document of three pages. Its id is made of the name.
#[must_use]
pub fn make_document(tenant: &TenantId, name: &str, created_millis: u64) -> DocumentRecord {
    DocumentRecord {
        id: DocumentId::from_content(name.as_bytes()),
        tenant: tenant.clone(),
        name: format!("{name}.pdf"),
        bytes: 7,
        pages: 3,
        title: None,
        outline: Vec::new(),
        collection: "default".into(),
        labels: Vec::new(),
        requested_collection_and_labels: CollectionAndLabelsRequest::default(),
        created_millis,
    }
}

/// Returns a request of a job with one file.
pub fn make_job_request(record: &JobRecord, document: DocumentId) -> JobRequest {
    JobRequest {
        job: record.id,
        tenant: record.tenant.clone(),
        lane: None,
        files: vec![RequestedFile {
            name: "a.pdf".into(),
            document,
            bytes: 5,
            password: None,
        }],
        options: JobRequestOptions {
            pages: Some((2, 9)),
            ..JobRequestOptions::default()
        },
        webhook: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    }
}

/// Returns the specification of a revision that differs for each `number`.
#[must_use]
pub fn make_revision_spec(number: u32) -> RevisionSpec {
    let mut manifest = Manifest::default_pipeline_manifest();
    manifest.settings.insert("dpi".into(), i64::from(number).into());
    RevisionSpec {
        manifest,
        components: ComponentsByRole::default(),
    }
}

/// Returns an event without a document.
pub(crate) fn page_done_event(job: JobId, seq: u64) -> Event {
    Event {
        seq,
        job,
        document: None,
        since_job_created_millis: seq,
        kind: EventKind::PageDone {
            page: 1,
            searchable: true,
            passages: 1,
        },
    }
}
