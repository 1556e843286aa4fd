//! The declarations themselves.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::providers::ProviderSettings;
use super::{
    Declaration, DeviceChoice, LogFormat, MetricsAccess, SandboxMode, SettingError, Value, WhenDown, nearest,
};

settings! {
    /// The host's settings.
    struct Settings;
    /// Every setting there is, but for the keys of providers.
    const DECLARATIONS;
    lists {
        /// Providers of language models, in the order in which they are preferred. None: sentences are quoted, nothing is written.
        llm_providers: ProviderSettings,
    }

    /// Folder with the native libraries and models; empty: the folder that `make setup` fills.
    "paths.assets" => assets: PathBuf = "", "a path" if |_v| true;
    /// Folder with the default components; empty: `components` beside the weir binary.
    "paths.components" => components: PathBuf = "", "a path" if |_v| true;

    /// PDF worker processes; 0: one for each core.
    "raster.workers" => raster_workers: u32 = "0", "processes, 0 to 256" if |v| v <= 256;
    /// Bytes of page images that may exist at one time, on the whole host.
    "raster.image_bytes" => raster_image_bytes: u64 = "134217728", "bytes, 16777216 to 1099511627776"
        if |v| (16 << 20..=1 << 40).contains(&v);
    /// Bytes one page image may take; a larger page is drawn coarser.
    "raster.page_bytes" => raster_page_bytes: u64 = "67108864", "bytes, 1048576 to 1073741824"
        if |v| (1 << 20..=1 << 30).contains(&v);
    /// Deadline of a page, from its start in a worker.
    "raster.page_seconds" => raster_page_seconds: u32 = "120", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Deadline without any sign of progress from a worker.
    "raster.stall_seconds" => raster_stall_seconds: u32 = "20", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Pages after which a worker process is replaced by a fresh one.
    "raster.recycle_pages" => raster_recycle_pages: u32 = "2000", "pages, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Address space a worker process may use beyond the page images.
    "raster.worker_bytes" => raster_worker_bytes: u64 = "1073741824", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Whether PDF workers must be locked in by landlock and seccomp, or may run with what the kernel offers.
    "raster.sandbox" => raster_sandbox: SandboxMode = "required", "required or best-effort" if |_v| true;
    /// Pages a document may have.
    "raster.max_pages" => raster_max_pages: u32 = "20000", "pages, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Quality of the page images that are kept.
    "raster.jpeg_quality" => raster_jpeg_quality: u32 = "85", "1 to 100" if |v| (1..=100).contains(&v);

    /// Where models run.
    "inference.device" => inference_device: DeviceChoice = "auto", "auto, cpu or cuda:N" if |_v| true;
    /// Pages recognized at once; 0: one for each core (CPU) or 2 (GPU).
    "inference.ocr_workers" => inference_ocr_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Text embedding sessions; 0: one for each core (CPU) or 1 (GPU).
    "inference.embed_workers" => inference_embed_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Texts in an embedding batch.
    "inference.batch" => inference_batch: u32 = "8", "texts, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// How long a partial embedding batch waits for more, where the batching component does not say.
    "inference.linger_millis" => inference_linger_millis: u32 = "500", "milliseconds, 0 to 10000" if |v| v <= 10_000;
    /// Requests of one tenant that may wait for a model, in each lane; 16 times as many may be under way before more are refused.
    "inference.queue" => inference_queue: u32 = "1024", "requests, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Whether the quantized text model is used on a CPU: about twice the speed, see the README for what it costs.
    "inference.quantized" => inference_quantized: bool = "true", "true or false" if |_v| true;

    /// Documents of one job in work at the same time.
    "engine.documents" => engine_documents: u32 = "2", "documents, 1 to 64" if |v| (1..=64).contains(&v);
    /// Page images written at once.
    "engine.store_workers" => engine_store_workers: u32 = "8", "workers, 1 to 256" if |v| (1..=256).contains(&v);
    /// Groups of pages written to the index at once; a document never has more than one under way.
    "engine.upsert_workers" => engine_upsert_workers: u32 = "2", "workers, 1 to 64" if |v| (1..=64).contains(&v);
    /// Milliseconds after which ledger entries are written as a group.
    "engine.commit_millis" => engine_commit_millis: u32 = "250", "milliseconds, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// Ledger entries that are written at once without waiting further.
    "engine.commit_entries" => engine_commit_entries: u32 = "100", "entries, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// How long pages in flight may take to end when a job is cancelled.
    "engine.cancel_millis" => engine_cancel_millis: u32 = "1000", "milliseconds, 0 to 60000" if |v| v <= 60_000;
    /// How long a job that someone waits for, of a tenant with nothing else in work, may go ahead of other tenants'; 0: never.
    "engine.head_start_millis" => engine_head_start_millis: u32 = "500", "milliseconds, 0 to 10000"
        if |v| v <= 10_000;

    /// Questions of one tenant that may wait for a language model; whoever asks many slows down at `llm.slow_percent` of it.
    "llm.queue" => llm_queue: u32 = "1000", "questions, 1 to 100000" if |v| (1..=100_000).contains(&v);
    /// How full a tenant's queue is when those who ask many slow down.
    "llm.slow_percent" => llm_slow_percent: u32 = "80", "percent, 1 to 100" if |v| (1..=100).contains(&v);
    /// Tries of a question at one provider before another is asked.
    "llm.tries" => llm_tries: u32 = "3", "tries, 1 to 20" if |v| (1..=20).contains(&v);
    /// Longest pause before the second try; it doubles with each further one, and each is drawn between 0 and that.
    "llm.pause_millis" => llm_pause_millis: u32 = "1000", "milliseconds, 1 to 60000" if |v| (1..=60_000).contains(&v);
    /// Longest pause between two tries, where the provider does not ask for a longer one.
    "llm.max_pause_seconds" => llm_max_pause_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// How long a question of a job may take, with all waiting and all tries: a book of hundreds of chapters is asked about all at
    /// once, and its last question waits for the others.
    "llm.patience_seconds" => llm_patience_seconds: u32 = "21600", "seconds, 1 to 86400"
        if |v| (1..=86_400).contains(&v);
    /// What becomes of a question when every provider has failed at it: it waits for one to recover, or it fails.
    "llm.when_down" => llm_when_down: WhenDown = "wait", "wait or fail" if |_v| true;
    /// How long a provider is not asked after it has denied a request (wrong key, no such model, quota exhausted). Requests
    /// that no other provider can answer fail at once meanwhile; the first one after it is sent to it again.
    "llm.denied_seconds" => llm_denied_seconds: u32 = "60", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Whether providers that fail are left alone for a while.
    "llm.breaker" => llm_breaker: bool = "true", "true or false" if |_v| true;
    /// Part of a provider's latest calls that fail when it is left alone.
    "llm.breaker_error_percent" => llm_breaker_error_percent: u32 = "25", "percent, 1 to 100"
        if |v| (1..=100).contains(&v);
    /// Time that one in twenty of a provider's latest calls exceeds when it is left alone, if another can answer.
    "llm.breaker_p95_seconds" => llm_breaker_p95_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Questions that pause before a further try at a provider when it is left alone, if another can answer.
    "llm.breaker_queue" => llm_breaker_queue: u32 = "15", "questions, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// How long a provider is left alone at least; twice as long each time that it fails again at once.
    "llm.breaker_open_seconds" => llm_breaker_open_seconds: u32 = "120", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Calls that must succeed before a provider that was left alone is asked as before.
    "llm.breaker_probes" => llm_breaker_probes: u32 = "3", "calls, 1 to 100" if |v| (1..=100).contains(&v);
    /// Whether fewer calls are under way at a provider than it allows where more of them would only make it slower.
    "llm.adaptive" => llm_adaptive: bool = "true", "true or false" if |_v| true;
    /// Whether a question that was answered before is not asked again.
    "llm.cache" => llm_cache: bool = "true", "true or false" if |_v| true;
    /// Bytes of answers that are kept for that.
    "llm.cache_bytes" => llm_cache_bytes: u64 = "67108864", "bytes, 65536 to 1099511627776"
        if |v| (1 << 16..=1 << 40).contains(&v);

    /// Pages that are at vision models at once, on the whole host; a provider's own `concurrency` may allow fewer.
    "vision.workers" => vision_workers: u32 = "5", "pages, 1 to 256" if |v| (1..=256).contains(&v);
    /// Longest side of the page image that a vision model is shown. More than a model takes is shrunk before it looks.
    "vision.longest_side" => vision_longest_side: u32 = "1568", "pixels, 256 to 8192"
        if |v| (256..=8192).contains(&v);
    /// Tokens that a page may have. A page that has more is reported as failed, not cut.
    "vision.max_tokens" => vision_max_tokens: u32 = "4096", "tokens, 64 to 65536" if |v| (64..=65_536).contains(&v);
    /// How long the reading of a page may take, with all waiting and all tries, before the page is reported as failed.
    "vision.patience_seconds" => vision_patience_seconds: u32 = "600", "seconds, 1 to 86400"
        if |v| (1..=86_400).contains(&v);
    /// What a vision model is asked, for one that was trained on a question of its own; empty: to write down the page as Markdown.
    "vision.prompt" => vision_prompt: String = "", "a text" if |_v| true;

    /// Component instances alive at once.
    "policy.instances" => policy_instances: u32 = "1000", "instances, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Deadline of a component's call, where the manifest does not say.
    "policy.call_millis" => policy_call_millis: u32 = "50", "milliseconds, 1 to 60000" if |v| (1..=60_000).contains(&v);
    /// Memory of a component's instance, where the manifest does not say.
    "policy.memory_bytes" => policy_memory_bytes: u64 = "33554432", "bytes, 1048576 to 67108864"
        if |v| (1 << 20..=64 << 20).contains(&v);
    /// Bytes a component may answer in one call.
    "policy.output_bytes" => policy_output_bytes: u64 = "1048576", "bytes, 1024 to 67108864"
        if |v| (1 << 10..=64 << 20).contains(&v);
    /// Seconds of CPU that compiling a component may take.
    "policy.compile_seconds" => policy_compile_seconds: u32 = "60", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Memory that compiling a component may take.
    "policy.compile_bytes" => policy_compile_bytes: u64 = "2147483648", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Bytes of compiled components that are kept on disk; those unused for longest go first, and are compiled again if need be.
    "policy.cache_bytes" => policy_cache_bytes: u64 = "8589934592", "bytes, 67108864 to 1099511627776"
        if |v| (64 << 20..=1 << 40).contains(&v);
    /// Components that stay in memory, those that jobs use among them.
    "policy.loaded_components" => policy_loaded_components: u32 = "1000", "components, 1 to 100000"
        if |v| (1..=100_000).contains(&v);
    /// Whether the calls of a job are recorded, so that it can be replayed.
    "policy.record" => policy_record: bool = "true", "true or false" if |_v| true;
    /// Days for which the recording of a job is kept; 0: for ever.
    "policy.record_days" => policy_record_days: u32 = "30", "days, 0 to 36500" if |v| v <= 36_500;
    /// Bytes of recordings that are kept on the whole host, the newest of them; 0: no limit.
    "policy.record_bytes" => policy_record_bytes: u64 = "17179869184", "bytes, 0 or 67108864 to 1099511627776"
        if |v| v == 0 || (64 << 20..=1 << 40).contains(&v);

    /// Jobs of one tenant in work at one time, where the tenant has no quota of its own; 0, here and below: no limit.
    "quota.concurrent_jobs" => quota_concurrent_jobs: u64 = "4", "jobs" if |_v| true;
    /// Jobs of one tenant that may wait.
    "quota.queued_jobs" => quota_queued_jobs: u64 = "1000", "jobs" if |_v| true;
    /// HTTP requests a second of one tenant, on average; bursts of twice that are let through.
    "quota.requests_per_second" => quota_requests_per_second: u64 = "500", "requests" if |_v| true;
    /// Bytes of one submission of a tenant.
    "quota.upload_bytes" => quota_upload_bytes: u64 = "0", "bytes" if |_v| true;
    /// Pages of one tenant a day (UTC).
    "quota.pages_per_day" => quota_pages_per_day: u64 = "0", "pages" if |_v| true;
    /// Bytes of documents and page images that one tenant keeps.
    "quota.stored_bytes" => quota_stored_bytes: u64 = "0", "bytes" if |_v| true;
    /// Milliseconds that models work for one tenant a day (UTC).
    "quota.inference_millis_per_day" => quota_inference_millis_per_day: u64 = "0", "milliseconds" if |_v| true;
    /// Milliseconds of CPU of one tenant's components a day (UTC).
    "quota.guest_millis_per_day" => quota_guest_millis_per_day: u64 = "0", "milliseconds" if |_v| true;
    /// Calls to language models for one tenant a day (UTC).
    "quota.llm_calls_per_day" => quota_llm_calls_per_day: u64 = "0", "calls" if |_v| true;
    /// Tokens of language models for one tenant a day (UTC), of requests and answers together.
    "quota.llm_tokens_per_day" => quota_llm_tokens_per_day: u64 = "0", "tokens" if |_v| true;
    /// Price of those tokens a day (UTC), in millionths of the currency of the providers' prices.
    "quota.llm_cost_micros_per_day" => quota_llm_cost_micros_per_day: u64 = "0", "millionths" if |_v| true;
    /// Bytes of memory of one instance of a tenant's component, where that is less than the pipeline asks for.
    "quota.guest_memory_bytes" => quota_guest_memory_bytes: u64 = "0", "bytes, 0 or 1048576 and more"
        if |v| v == 0 || v >= 1 << 20;

    /// Address and port that `weir serve` listens on.
    "server.listen" => server_listen: SocketAddr = "127.0.0.1:7070", "an address and a port" if |_v| true;
    /// File with the TLS certificate chain (PEM); empty: plain HTTP.
    "server.tls_certificate" => server_tls_certificate: PathBuf = "", "a path" if |_v| true;
    /// File with the certificate's private key (PEM).
    "server.tls_key" => server_tls_key: PathBuf = "", "a path" if |_v| true;
    /// Connections open at one time, or half of the files that the process may open if that is less. To make room for a new one the
    /// longest idle one is closed; where all are in use the new one is.
    "server.connections" => server_connections: u32 = "4096", "connections, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Connections open at one time from one IPv4 address or IPv6 network (/64); 0: no limit. Behind a reverse proxy all clients
    /// have the address of the proxy: set it to 0 there, and limit clients in the proxy.
    "server.address_connections" => server_address_connections: u32 = "2048", "connections, 0 to 1000000"
        if |v| v <= 1_000_000;
    /// Seconds that a connection may take from when it is accepted to the end of its first request's headers, with the TLS handshake,
    /// and from the end of a response to that of the next request's headers. Behind a reverse proxy that keeps its connections: more
    /// than the proxy keeps an idle one.
    "server.header_seconds" => server_header_seconds: u32 = "10", "seconds, 1 to 600" if |v| (1..=600).contains(&v);
    /// Seconds without a byte after which an upload, or a client that takes nothing of an answer, is given up.
    "server.stall_seconds" => server_stall_seconds: u32 = "30", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Seconds that running jobs have to end when the host is told to stop; they go on at the next start.
    "server.grace_seconds" => server_grace_seconds: u32 = "10", "seconds, 0 to 3600" if |v| v <= 3600;
    /// Jobs in work at one time, of all tenants together.
    "server.jobs" => server_jobs: u32 = "8", "jobs, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Jobs that may wait, of all tenants together; more are refused as overload.
    "server.queue" => server_queue: u32 = "10000", "jobs, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Bytes up to which a submission counts as one that someone waits for, where the client does not name a lane.
    "server.interactive_bytes" => server_interactive_bytes: u64 = "4194304", "bytes" if |_v| true;
    /// Bytes of one submission, whatever the tenant's quota is.
    "server.upload_bytes" => server_upload_bytes: u64 = "2147483648", "bytes, 1024 to 1099511627776"
        if |v| (1 << 10..=1 << 40).contains(&v);
    /// Files of one submission.
    "server.upload_files" => server_upload_files: u32 = "1000", "files, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Whether documents are fetched from URLs that clients give.
    "server.fetch" => server_fetch: bool = "true", "true or false" if |_v| true;
    /// Whether such URLs, and those of webhooks, may lead to private addresses. Only for tests and closed networks: a tenant
    /// can then reach whatever the host can.
    "server.fetch_private" => server_fetch_private: bool = "false", "true or false" if |_v| true;
    /// Seconds that fetching one document may take.
    "server.fetch_seconds" => server_fetch_seconds: u32 = "120", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Bytes of memory that must be available for a job to be accepted, on the machine and within the limits of its control groups
    /// (cgroups), as containers have them; 0: not looked at.
    "server.min_free_bytes" => server_min_free_bytes: u64 = "268435456", "bytes" if |_v| true;
    /// Bytes of the data folder's disk that must stay free when an upload is accepted, so that jobs can go on.
    "server.min_free_disk_bytes" => server_min_free_disk_bytes: u64 = "67108864", "bytes" if |_v| true;
    /// Seconds that a tenant may go without a turn, though its own limits would allow one, before jobs are refused as
    /// overload; 0: not looked at.
    "server.max_wait_seconds" => server_max_wait_seconds: u32 = "600", "seconds, 0 to 86400" if |v| v <= 86_400;
    /// Seconds between signs of life on an event stream.
    "server.heartbeat_seconds" => server_heartbeat_seconds: u32 = "15", "seconds, 1 to 600"
        if |v| (1..=600).contains(&v);
    /// Who may read `/metrics`: `key` is whoever has a key with the scope `admin`.
    "server.metrics" => server_metrics: MetricsAccess = "key", "open, key or off" if |_v| true;
    /// Event streams open at one time, of all tenants together.
    "server.streams" => server_streams: u32 = "2048", "streams, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Event streams open at one time for one tenant.
    "server.tenant_streams" => server_tenant_streams: u32 = "512", "streams, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Seconds that a signed link to a page image or its lines can be used.
    "server.link_seconds" => server_link_seconds: u32 = "900", "seconds, 60 to 604800"
        if |v| (60..=604_800).contains(&v);

    /// Queries that may wait for their turn.
    "stream.capacity" => stream_capacity: u32 = "1000", "queries, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// How long a query may wait for others to share a batch with, while its tenant has a batch under way.
    "stream.linger_millis" => stream_linger_millis: u32 = "100", "milliseconds, 0 to 10000" if |v| v <= 10_000;
    /// Queries of one tenant that are embedded together.
    "stream.batch" => stream_batch: u32 = "32", "queries, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// Query streams open at one time, of all tenants together.
    "stream.streams" => stream_streams: u32 = "10", "streams, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Query streams open at one time for one tenant; fewer than `stream.streams`, so that no tenant holds them all.
    "stream.tenant_streams" => stream_tenant_streams: u32 = "8", "streams, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// Seconds after which a query that is not answered is given up.
    "stream.seconds" => stream_seconds: u32 = "30", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);

    /// Times that a webhook is tried before it is given up.
    "webhook.tries" => webhook_tries: u32 = "8", "times, 1 to 20" if |v| (1..=20).contains(&v);
    /// Seconds before the second try of a webhook; each further pause is four times the one before, at most a day.
    "webhook.pause_seconds" => webhook_pause_seconds: u32 = "15", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Seconds that a webhook's receiver has to answer.
    "webhook.seconds" => webhook_seconds: u32 = "10", "seconds, 1 to 60" if |v| (1..=60).contains(&v);

    /// Tenants that have a series of their own among the metrics; the others together are `other`.
    "metrics.tenants" => metrics_tenants: u32 = "50", "tenants, 0 to 10000" if |v| v <= 10_000;

    /// How the log is written.
    "log.format" => log_format: LogFormat = "text", "text or json" if |_v| true;

    /// Address that traces are sent to by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; empty: none are made.
    "otel.endpoint" => otel_endpoint: String = "", "an http or https address"
        if |v| v.is_empty() || v.starts_with("http://") || v.starts_with("https://");
}
