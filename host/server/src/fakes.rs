//! Ports in memory, for the tests of handlers. What is committed is kept in one place, as a ledger would.

mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use parking_lot::Mutex;
use tower::ServiceExt as _;
use weir_core::decision::Device;
use weir_core::event::{Event, EventKind};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord};
use weir_core::order::{Idempotency, JobFilter, Order, OrderOptions, OrderedFile, Orders, Put};
use weir_core::ports::{Account, BlobStore, Embedder, Ledger, VectorStore};
use weir_core::search::{Hit, Point, Query};
use weir_core::settings::Settings;
use weir_core::tenancy::{KeyRecord, Quotas, Registry, Scope, Tenant, TenantState};
use weir_core::usage::{Day, Usage, UsageBook};
use weir_core::{DocumentId, InferenceError, JobId, PageNumber, RevisionId, StorageError, TenantId};
use weir_engine::{Engine, EngineConfig, Ports};

use crate::app::{App, Server, ServerParts, routes};
use crate::hub::Announced;
use crate::signed::SigningKey;
use crate::usage::Metering;

pub(crate) use work::{Files, Works};

/// What is known of jobs, documents, tenants and keys.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    jobs: Vec<JobRecord>,
    documents: Vec<DocumentRecord>,
    pages: BTreeMap<(TenantId, DocumentId, PageNumber), PageRecord>,
    /// In the order of writing: the place is the index and one.
    events: Vec<(TenantId, Event)>,
    orders: Vec<Order>,
    webhooks: BTreeMap<(TenantId, JobId), u32>,
    tenants: BTreeMap<TenantId, Tenant>,
    keys: BTreeMap<String, KeyRecord>,
    usage: HashMap<(TenantId, Day), Usage>,
    words: HashMap<(TenantId, String), ([u8; 32], JobId)>,
    stored: HashMap<TenantId, u64>,
    reads: usize,
    failing: bool,
}

impl Memory {
    /// How often events were read.
    pub(crate) fn reads(&self) -> usize {
        self.0.lock().reads
    }

    /// Whether events can be read.
    pub(crate) fn fail(&self, failing: bool) {
        self.0.lock().failing = failing;
    }

    /// What a tenant keeps.
    pub(crate) fn store(&self, tenant: &TenantId, bytes: u64) {
        self.0.lock().stored.insert(tenant.clone(), bytes);
    }

    fn reading(&self) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        kept.reads += 1;
        if kept.failing {
            return Err(StorageError::Failed {
                what: "events".into(),
                reason: "the test says so".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        for entry in entries {
            match entry {
                Entry::Job(job) => match kept.jobs.iter_mut().find(|j| j.id == job.id) {
                    Some(known) => *known = job,
                    None => kept.jobs.push(job),
                },
                Entry::Document(document) => {
                    kept.documents
                        .retain(|d| (&d.tenant, d.id) != (&document.tenant, document.id));
                    kept.documents.push(document);
                }
                Entry::Page(page) => {
                    kept.pages
                        .insert((page.tenant.clone(), page.document, page.page), page);
                }
                Entry::Event(tenant, event) => {
                    let same =
                        |(t, e): &(TenantId, Event)| *t == tenant && (e.job, e.seq) == (event.job, event.seq);
                    if !kept.events.iter().rev().take(1000).any(same) {
                        kept.events.push((tenant, event));
                    }
                }
            }
        }
        Ok(())
    }

    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let kept = self.0.lock();
        let mut documents = kept.documents.iter();
        Ok(documents
            .find(|d| (&d.tenant, &d.id) == (tenant, document))
            .cloned())
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        let kept = self.0.lock();
        let mut documents: Vec<_> = kept
            .documents
            .iter()
            .filter(|d| d.tenant == *tenant)
            .cloned()
            .collect();
        documents.sort_by_key(|d| std::cmp::Reverse(d.created_millis));
        Ok(documents)
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        _revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let kept = self.0.lock();
        let pages = kept.pages.values();
        Ok(pages
            .filter(|p| (&p.tenant, &p.document) == (tenant, document))
            .cloned()
            .collect())
    }

    async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let kept = self.0.lock();
        let mut jobs = kept.jobs.iter();
        Ok(jobs.find(|j| (&j.tenant, &j.id) == (tenant, job)).cloned())
    }

    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError> {
        let kept = self.0.lock();
        Ok(kept
            .jobs
            .iter()
            .filter(|j| !j.state.is_ended())
            .cloned()
            .collect())
    }

    async fn events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        self.reading()?;
        // A read takes a moment, in which others commit.
        let events = {
            let kept = self.0.lock();
            let of_job = kept
                .events
                .iter()
                .filter(|(t, e)| t == tenant && e.job == *job && e.seq > after);
            of_job.take(limit).map(|(_, e)| e.clone()).collect()
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        self.reading()?;
        let events = {
            let kept = self.0.lock();
            let placed = (1..).zip(&kept.events).skip(usize::try_from(after).unwrap());
            placed
                .filter(|(_, (t, _))| t == tenant)
                .take(limit)
                .map(|(place, (_, e))| (place, e.clone()))
                .collect()
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let kept = self.0.lock();
        Ok((1..)
            .zip(&kept.events)
            .filter(|(_, (t, _))| t == tenant)
            .map(|(p, _)| p)
            .last()
            .unwrap_or(0))
    }

    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let mut kept = self.0.lock();
        let before = kept.documents.len();
        kept.documents
            .retain(|d| (&d.tenant, &d.id) != (tenant, document));
        kept.pages.retain(|(t, d, _), _| (t, d) != (tenant, document));
        Ok(kept.documents.len() < before)
    }
}

#[async_trait]
impl Orders for Memory {
    async fn put(
        &self,
        record: &JobRecord,
        order: &Order,
        idempotency: Option<&Idempotency>,
    ) -> Result<Put, StorageError> {
        let mut kept = self.0.lock();
        if let Some(Idempotency { key, digest }) = idempotency {
            let word = (order.tenant.clone(), key.clone());
            match kept.words.get(&word) {
                Some((known, job)) if known == digest => return Ok(Put::Before(*job)),
                Some(_) => return Ok(Put::Differs),
                None => drop(kept.words.insert(word, (*digest, order.job))),
            }
        }
        kept.jobs.push(record.clone());
        kept.orders.push(order.clone());
        if order.webhook.is_some() {
            kept.webhooks.insert((order.tenant.clone(), order.job), 0);
        }
        Ok(Put::New)
    }

    async fn order(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Order>, StorageError> {
        let kept = self.0.lock();
        let mut orders = kept.orders.iter();
        Ok(orders.find(|o| (&o.tenant, &o.job) == (tenant, job)).cloned())
    }

    async fn forget_passwords(&self, tenant: &TenantId, job: &JobId) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        let order = kept
            .orders
            .iter_mut()
            .find(|o| (&o.tenant, &o.job) == (tenant, job));
        order
            .into_iter()
            .flat_map(|order| &mut order.files)
            .for_each(|file| file.password = None);
        Ok(())
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError> {
        let kept = self.0.lock();
        let mut jobs: Vec<_> = kept
            .jobs
            .iter()
            .filter(|j| j.tenant == *tenant && filter.state.is_none_or(|state| state == j.state))
            .filter(|j| filter.before.is_none_or(|before| j.id.0 < before.0))
            .cloned()
            .collect();
        jobs.sort_by_key(|j| std::cmp::Reverse(j.id.0));
        jobs.truncate(filter.limit);
        Ok(jobs)
    }

    async fn owed_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        let kept = self.0.lock();
        let owed = kept.webhooks.iter();
        Ok(owed
            .map(|((tenant, job), tries)| (tenant.clone(), *job, *tries))
            .collect())
    }

    async fn webhook_tried(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError> {
        let (key, mut kept) = ((tenant.clone(), *job), self.0.lock());
        match tries {
            Some(tries) => drop(kept.webhooks.insert(key, tries)),
            None => drop(kept.webhooks.remove(&key)),
        }
        Ok(())
    }
}

#[async_trait]
impl Registry for Memory {
    async fn put_tenant(&self, tenant: &Tenant) -> Result<(), StorageError> {
        self.0.lock().tenants.insert(tenant.id.clone(), tenant.clone());
        Ok(())
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        Ok(self.0.lock().tenants.get(id).cloned())
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        Ok(self.0.lock().tenants.values().cloned().collect())
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        let mut kept = self.0.lock();
        kept.keys.retain(|_, key| key.tenant != *id);
        kept.jobs.retain(|job| job.tenant != *id);
        kept.orders.retain(|order| order.tenant != *id);
        kept.documents.retain(|document| document.tenant != *id);
        kept.pages.retain(|(tenant, ..), _| tenant != id);
        kept.events.retain(|(tenant, _)| tenant != id);
        Ok(kept.tenants.remove(id).is_some())
    }

    async fn put_key(&self, key: &KeyRecord) -> Result<(), StorageError> {
        self.0.lock().keys.insert(key.id.clone(), key.clone());
        Ok(())
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StorageError> {
        Ok(self.0.lock().keys.get(id).cloned())
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRecord>, StorageError> {
        let kept = self.0.lock();
        Ok(kept
            .keys
            .values()
            .filter(|k| k.tenant == *tenant)
            .cloned()
            .collect())
    }
}

#[async_trait]
impl UsageBook for Memory {
    async fn add(&self, day: Day, amounts: Vec<(TenantId, Usage)>) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        if kept.failing {
            return Err(StorageError::Full { what: "usage".into() });
        }
        for (tenant, usage) in amounts {
            kept.usage.entry((tenant, day)).or_default().add(&usage);
        }
        Ok(())
    }

    async fn usage(&self, tenant: &TenantId, from: Day, to: Day) -> Result<Vec<(Day, Usage)>, StorageError> {
        let kept = self.0.lock();
        let mut days: Vec<_> = (kept.usage.iter())
            .filter(|((t, day), _)| t == tenant && (from..=to).contains(day))
            .map(|((_, day), usage)| (*day, *usage))
            .collect();
        days.sort_by_key(|(day, _)| *day);
        Ok(days)
    }

    async fn stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        Ok(self.0.lock().stored.get(tenant).copied().unwrap_or(0))
    }
}

/// Blobs in memory.
#[derive(Default)]
pub(crate) struct Blobs(Mutex<BTreeMap<(TenantId, String), Vec<u8>>>);

#[async_trait]
impl BlobStore for Blobs {
    async fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.0
            .lock()
            .insert((tenant.clone(), key.to_owned()), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().get(&(tenant.clone(), key.to_owned())).cloned())
    }

    async fn list(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        let kept = self.0.lock();
        let keys = kept
            .keys()
            .filter(|(t, key)| t == tenant && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    async fn delete(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        self.0
            .lock()
            .retain(|(t, key), _| !(t == tenant && key.starts_with(prefix)));
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Finds the passages that contain the query's words.
#[derive(Default)]
pub(crate) struct Vectors(pub(crate) Mutex<Vec<(TenantId, String, Point)>>);

#[async_trait]
impl VectorStore for Vectors {
    async fn upsert(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<Point>,
    ) -> Result<(), StorageError> {
        let points = points
            .into_iter()
            .map(|p| (tenant.clone(), collection.to_owned(), p));
        self.0.lock().extend(points);
        Ok(())
    }

    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        let meant = |p: &Point| p.document == *document && pages.is_none_or(|pages| pages.contains(&p.page));
        self.0.lock().retain(|(t, _, p)| !(t == tenant && meant(p)));
        Ok(())
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.0.lock().retain(|(t, _, _)| t != tenant);
        Ok(())
    }

    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError> {
        let kept = self.0.lock();
        let hits = kept.iter().filter(|(t, collection, p)| {
            t == tenant
                && p.text.contains(&query.text)
                && (query.documents.is_empty() || query.documents.contains(&p.document))
                && query.collection.as_ref().is_none_or(|c| c == collection)
                && query.labels.iter().all(|label| p.labels.contains(label))
        });
        let hits = hits.take(query.top_k).map(|(_, _, p)| Hit {
            document: p.document,
            name: p.name.clone(),
            page: p.page,
            score: 1.0,
            text: p.text.clone(),
            rect: p.rect,
            image: p.image.clone(),
        });
        Ok(hits.collect())
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let kept = self.0.lock();
        let mut pages = BTreeMap::new();
        for (_, _, point) in kept
            .iter()
            .filter(|(t, _, p)| t == tenant && p.document == *document)
        {
            *pages.entry(point.page).or_insert(0) += 1;
        }
        Ok(pages.into_iter().collect())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Embeds texts in no time, or in the time that is set, and counts.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) calls: AtomicUsize,
    pub(crate) texts: AtomicUsize,
    pub(crate) takes: Mutex<Duration>,
}

#[async_trait]
impl Embedder for Counting {
    async fn embed(&self, _account: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        let takes = *self.takes.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(texts.iter().map(|_| vec![1.0]).collect())
    }

    fn count_tokens(&self, _text: &str) -> Result<u32, InferenceError> {
        Ok(1)
    }

    fn dimensions(&self) -> usize {
        1
    }

    fn max_tokens(&self) -> u32 {
        256
    }

    fn workers(&self) -> u32 {
        2
    }

    fn device(&self) -> Device {
        Device::default()
    }
}

/// A host in memory.
pub(crate) struct Host {
    pub(crate) app: Arc<App>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) embedder: Arc<Counting>,
    pub(crate) works: Arc<Works>,
    pub(crate) files: Arc<Files>,
    pub(crate) data: tempfile::TempDir,
}

impl Host {
    /// A host with the settings' defaults.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let memory = Arc::new(Memory::default());
        let server = Self::over(&memory, settings);
        let Built {
            server,
            blobs,
            vectors,
            embedder,
            works,
            files,
            data,
        } = server;
        Self {
            app: server.app(),
            memory,
            blobs,
            vectors,
            embedder,
            works,
            files,
            data,
        }
    }

    /// A server over what an earlier one has left.
    pub(crate) fn over(memory: &Arc<Memory>, settings: Settings) -> Built {
        let (blobs, vectors, embedder) = <(Arc<Blobs>, Arc<Vectors>, Arc<Counting>)>::default();
        let ledger = Announced::new(memory.clone());
        let works = Arc::new(Works::default());
        let metering = Metering::new();
        let ports = Ports {
            rasterizer: works.clone(),
            reader: None,
            embedder: embedder.clone(),
            language_model: None,
            blobs: blobs.clone(),
            vectors: vectors.clone(),
            ledger: ledger.clone(),
            policies: works.clone(),
            meter: Some(metering.clone()),
        };
        let data = tempfile::tempdir().unwrap();
        let files = Files::new(&data.path().join("originals"));
        let server = Server::new(ServerParts {
            engine: Engine::new(ports, EngineConfig::from_settings(&settings)),
            ledger,
            registry: memory.clone(),
            orders: memory.clone(),
            usage: memory.clone(),
            metering,
            pipelines: works.clone(),
            originals: files.clone(),
            signing: SigningKey::open(data.path()).unwrap(),
            settings,
        });
        Built {
            server,
            blobs,
            vectors,
            embedder,
            works,
            files,
            data,
        }
    }

    pub(crate) fn router(&self) -> Router {
        routes(Arc::clone(&self.app)).0
    }

    /// The answer to a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router().oneshot(request).await.unwrap()
    }

    /// The answer to a GET with a key.
    pub(crate) async fn get(&self, path: &str, key: &str) -> Response<Body> {
        self.send(Host::request("GET", path, key, Body::empty())).await
    }

    /// The answer to a POST of JSON with a key.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &serde_json::Value) -> Response<Body> {
        self.send(Host::request("POST", path, key, Body::from(body.to_string())))
            .await
    }

    pub(crate) fn request(method: &str, path: &str, key: &str, body: Body) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap()
    }

    /// Makes a tenant with a key of these scopes.
    pub(crate) async fn tenant(&self, name: &str, scopes: &[Scope]) -> (TenantId, String) {
        tenant(&self.memory, name, scopes).await
    }

    /// A job of a tenant without events.
    pub(crate) async fn job(&self, tenant: &TenantId) -> JobId {
        let id = JobId::new();
        self.app
            .ledger
            .commit(vec![Entry::Job(job_record(tenant, id, JobState::Running))])
            .await
            .unwrap();
        id
    }

    /// Puts in a job with one file.
    pub(crate) async fn order(&self, tenant: &TenantId, job: JobId, document: DocumentId) {
        let file = OrderedFile {
            name: "file.pdf".into(),
            document,
            bytes: 1,
            password: None,
        };
        let order = Order {
            job,
            tenant: tenant.clone(),
            lane: None,
            files: vec![file],
            options: OrderOptions::default(),
            webhook: None,
        };
        let record = job_record(tenant, job, JobState::Queued);
        self.memory.put(&record, &order, None).await.unwrap();
    }

    /// Commits events `from..=to` of a job; with the last one the job ends if `ends`.
    pub(crate) async fn events(&self, tenant: &TenantId, job: JobId, from: u64, to: u64, ends: bool) {
        commit_events(self.app.ledger.as_ref(), tenant, job, from, to, ends).await;
    }
}

/// What handlers share on a host in memory.
pub(crate) fn app() -> Arc<App> {
    Host::new().app
}

/// A server that does not listen yet, and what it stands on.
pub(crate) struct Built {
    pub(crate) server: Server,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) embedder: Arc<Counting>,
    pub(crate) works: Arc<Works>,
    pub(crate) files: Arc<Files>,
    pub(crate) data: tempfile::TempDir,
}

pub(crate) async fn tenant(memory: &Memory, name: &str, scopes: &[Scope]) -> (TenantId, String) {
    let id: TenantId = name.parse().unwrap();
    let tenant = Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        created_millis: 0,
    };
    memory.put_tenant(&tenant).await.unwrap();
    let key = crate::auth::mint(&id, scopes.to_vec(), "test", 0, None).unwrap();
    memory.put_key(&key.record).await.unwrap();
    (id, key.text)
}

pub(crate) fn job_record(tenant: &TenantId, id: JobId, state: JobState) -> JobRecord {
    JobRecord {
        id,
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: RevisionId::of(b"revision"),
        state,
        created_millis: 1,
    }
}

pub(crate) async fn commit_events(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: JobId,
    from: u64,
    to: u64,
    ends: bool,
) {
    let mut entries: Vec<_> = (from..=to)
        .map(|seq| {
            let what = if ends && seq == to {
                EventKind::JobEnded {
                    state: JobState::Done,
                }
            } else {
                EventKind::PageDone {
                    page: u32::try_from(seq).unwrap(),
                    searchable: true,
                    passages: 1,
                }
            };
            let document = Some(DocumentId::of(b"document"));
            let event = Event {
                seq,
                job,
                document,
                at_millis: seq,
                what,
            };
            Entry::Event(tenant.clone(), event)
        })
        .collect();
    if ends {
        entries.push(Entry::Job(job_record(tenant, job, JobState::Done)));
    }
    ledger.commit(entries).await.unwrap();
}

/// A JSON body.
pub(crate) async fn json(response: Response<Body>) -> serde_json::Value {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
        .await
        .unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}
