//! The declarations of the host's settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::node::NodeRole;

use super::providers::ProviderSettings;
use super::renamed_settings::unknown_setting_error;
use super::setting_type::{
    AllProvidersFailedAction, DeviceChoice, LogFormat, MetricsAccess, SandboxMode, SettingDeclaration,
    SettingError, SettingType,
};

settings! {
    /// Settings of the host.
    struct Settings;
    /// Declarations of all settings except the keys of providers.
    const DECLARATIONS;
    lists {
        /// Providers of language models in order of preference. If there are none, summaries quote sentences of the
        /// document.
        llm_providers: ProviderSettings,
    }

    /// Folder with the native libraries and models. Empty: the folder that `make setup` fills.
    "paths.assets" => assets: PathBuf = "", "a path" if |_v| true;
    /// Folder with the default components. Empty: the folder `components` beside the weir binary.
    "paths.default_components" => components: PathBuf = "", "a path" if |_v| true;

    /// Number of PDF worker processes. 0: one for each core.
    "raster.worker_processes" => raster_worker_processes: u32 = "0", "processes, 0 to 256" if |v| v <= 256;
    /// Maximum bytes of all page images in memory, on the whole host.
    "raster.max_total_image_bytes" => raster_max_total_image_bytes: u64 = "134217728", "bytes, 16777216 to 1099511627776"
        if |v| (16 << 20..=1 << 40).contains(&v);
    /// Maximum bytes of one page image. A larger page is rasterized at a lower resolution.
    "raster.max_page_image_bytes" => raster_max_page_image_bytes: u64 = "67108864", "bytes, 1048576 to 1073741824"
        if |v| (1 << 20..=1 << 30).contains(&v);
    /// Maximum time for a page, from its start in a worker.
    "raster.page_timeout_seconds" => raster_page_timeout_seconds: u32 = "120", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Maximum time without progress of a worker on a page.
    "raster.stall_timeout_seconds" => raster_stall_timeout_seconds: u32 = "20", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Number of pages after which a worker process is replaced.
    "raster.max_pages_per_worker" => raster_max_pages_per_worker: u32 = "2000", "pages, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Maximum address space of a worker process, page images not included.
    "raster.max_worker_memory_bytes" => raster_max_worker_memory_bytes: u64 = "1073741824", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Whether PDF workers require the full sandbox (landlock and seccomp), or run with the parts that the kernel
    /// supports.
    "raster.sandbox_mode" => raster_sandbox_mode: SandboxMode = "required", "required or best-effort" if |_v| true;
    /// Maximum number of pages of a document.
    "raster.max_document_pages" => raster_max_document_pages: u32 = "20000", "pages, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// JPEG quality of stored page images.
    "raster.jpeg_quality" => raster_jpeg_quality: u32 = "85", "1 to 100" if |v| (1..=100).contains(&v);

    /// Device that models run on.
    "inference.device" => inference_device: DeviceChoice = "auto", "auto, cpu or cuda:N" if |_v| true;
    /// Number of pages that OCR processes at once. 0: one for each core (CPU) or 2 (GPU).
    "inference.ocr_workers" => inference_ocr_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Number of text embedding sessions. 0: one for each core (CPU) or 1 (GPU).
    "inference.embedding_workers" => inference_embedding_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Maximum number of texts in an embedding batch.
    "inference.max_embedding_batch_texts" => inference_max_embedding_batch_texts: u32 = "8", "texts, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// How long a partial embedding batch waits for more texts, if the batching component does not set it.
    "inference.embedding_batch_linger_millis" => inference_embedding_batch_linger_millis: u32 = "500", "milliseconds, 0 to 10000" if |v| v <= 10_000;
    /// Maximum number of requests of one tenant that wait for a model, in each lane. A request is refused if 16 times
    /// as many are waiting or running.
    "inference.max_queued_requests_per_tenant" => inference_max_queued_requests_per_tenant: u32 = "1024", "requests, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Whether the quantized text embedding model is used on a CPU. It is about three times as fast; the README describes
    /// the loss of quality.
    "inference.use_quantized_model" => inference_use_quantized_model: bool = "true", "true or false" if |_v| true;

    /// URL of a PostgreSQL database for jobs, documents, tenants and everything else that is not a file or a passage. With TLS
    /// (`?sslmode=require`) the certificate is verified. Empty: the file `ledger.db` in the data folder. A change does not move
    /// anything.
    "storage.ledger" => storage_ledger: String = "", "a URL without a password such as postgres://weir@db/weir, or empty"
        if |v| v.is_empty() || is_postgres_url_without_password(&v);
    /// Environment variable with the password of the PostgreSQL user. Empty: no password is sent.
    "storage.postgres_password_env" => storage_postgres_password_env: String = "", "a name" if |_v| true;
    /// Maximum number of connections of this process to the PostgreSQL server.
    "storage.postgres_max_connections" => storage_postgres_max_connections: u32 = "16", "connections, 2 to 1000" if |v| (2..=1000).contains(&v);
    /// URL of the gRPC port of a Qdrant server that stores the passages and their vectors. Empty: the passages are in an
    /// index in the data folder. A change does not move passages: ingest the documents again.
    "storage.vectors" => storage_vectors: String = "", "an http:// or https:// URL such as http://qdrant:6334, or empty"
        if |v| v.is_empty() || v.starts_with("http://") || v.starts_with("https://");
    /// Environment variable with the API key of the Qdrant server. Empty: no key is sent.
    "storage.qdrant_key_env" => storage_qdrant_key_env: String = "", "a name" if |_v| true;
    /// Number of copies of each passage in a cluster of Qdrant servers. It applies when the collection is created.
    "storage.qdrant_replication_factor" => storage_qdrant_replication_factor: u32 = "1", "copies, 1 to 32" if |v| (1..=32).contains(&v);
    /// Location on an S3 server of uploads, components, page images and texts, such as `s3://bucket/prefix`. Empty: they are in the
    /// data folder. A change moves nothing: push the components again, and ingest the documents again with `force`.
    /// Credentials come from the environment, a profile, a web identity or an instance, as for AWS's own tools.
    "storage.blobs" => storage_blobs: String = "", "s3://bucket or s3://bucket/prefix, or empty"
        if |v| v.is_empty() || v.strip_prefix("s3://").is_some_and(|location| !location.is_empty());
    /// URL of the S3 server. Empty: AWS.
    "storage.s3_endpoint" => storage_s3_endpoint: String = "", "an http:// or https:// URL such as http://minio:9000, or empty"
        if |v| v.is_empty() || v.starts_with("http://") || v.starts_with("https://");
    /// Region of the bucket. Empty: the region of the environment or the profile, or else `us-east-1`.
    "storage.s3_region" => storage_s3_region: String = "", "a region" if |_v| true;
    /// Whether requests name the bucket in the path of the URL and not in the name of the host. Most S3 servers other than AWS
    /// need it.
    "storage.s3_path_style" => storage_s3_path_style: bool = "false", "true or false" if |_v| true;
    /// How the S3 server encrypts new objects: `AES256` with its own keys, `aws:kms` with the bucket's key in the key management
    /// service. Empty: as the bucket is configured.
    "storage.s3_server_side_encryption" => storage_s3_server_side_encryption: String = "", "AES256 or aws:kms, or empty"
        if |v| ["", "AES256", "aws:kms"].contains(&v.as_str());
    /// Maximum bytes of uploads and components from the S3 server that are cached in the data folder. The least recently used are
    /// removed first. Files of running jobs stay and can exceed it.
    "storage.s3_cache_bytes" => storage_s3_cache_bytes: u64 = "8589934592", "bytes, 1048576 to 1099511627776"
        if |v| (1 << 20..=1 << 40).contains(&v);

    /// Name of this host among the nodes that share a PostgreSQL server. Empty: the name of the machine.
    "cluster.node" => cluster_node: String = "", "a name of at most 64 characters" if |v| v.len() <= 64;
    /// What this node does: it serves the API (`api`), runs jobs (`worker`), or both. A worker serves only `/healthz`, `/readyz` and
    /// `/metrics`. Roles other than `both` need `storage.ledger`, `storage.vectors` and `storage.blobs`.
    "cluster.role" => cluster_role: NodeRole = "both", "api, worker or both" if |_v| true;
    /// URL of a Redis server, so that nodes learn of new jobs and events at once and share request rates and places of streams exactly.
    /// Its data may be lost at any time. With `rediss://` the certificate is verified. Empty: nodes look into the ledger every
    /// second, and each takes its share of a limit.
    "cluster.redis" => cluster_redis: String = "", "a URL without a password such as redis://redis:6379/0, or empty"
        if |v| v.is_empty() || is_redis_url_without_password(&v);
    /// Environment variable with the password of the Redis user. Empty: no password is sent.
    "cluster.redis_password_env" => cluster_redis_password_env: String = "", "a name" if |_v| true;
    /// First part of all keys and channels on the Redis server. Clusters that share a server need different ones.
    "cluster.redis_key_prefix" => cluster_redis_key_prefix: String = "weir", "1 to 64 characters" if |v| (1..=64).contains(&v.len());
    /// Time after which other nodes take over the jobs of a node that does not respond.
    "cluster.lease_seconds" => cluster_lease_seconds: u32 = "30", "seconds, 3 to 600" if |v| (3..=600).contains(&v);

    /// Maximum number of documents of one job that are processed at once.
    "engine.max_concurrent_documents_per_job" => engine_max_concurrent_documents_per_job: u32 = "2", "documents, 1 to 64" if |v| (1..=64).contains(&v);
    /// Maximum number of page images that are written at once.
    "engine.image_store_workers" => engine_image_store_workers: u32 = "8", "workers, 1 to 256" if |v| (1..=256).contains(&v);
    /// Maximum number of page groups that are written to the index at once. A document has at most one.
    "engine.index_upsert_workers" => engine_index_upsert_workers: u32 = "2", "workers, 1 to 64" if |v| (1..=64).contains(&v);
    /// Maximum time that a ledger entry waits until its group is written.
    "engine.ledger_commit_interval_millis" => engine_ledger_commit_interval_millis: u32 = "250", "milliseconds, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// Number of waiting ledger entries at which the group is written at once.
    "engine.ledger_entries_per_commit" => engine_ledger_entries_per_commit: u32 = "100", "entries, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// How long pages that are being processed can continue after their job is cancelled.
    "engine.cancel_timeout_millis" => engine_cancel_timeout_millis: u32 = "1000", "milliseconds, 0 to 60000" if |v| v <= 60_000;
    /// How far an interactive job of a tenant without other active jobs can go ahead of other tenants in the fair
    /// queue. 0: never.
    "engine.latency_boost_millis" => engine_latency_boost_millis: u32 = "500", "milliseconds, 0 to 10000"
        if |v| v <= 10_000;

    /// Maximum number of requests of one tenant that wait for a language model. Jobs send requests more slowly from
    /// `llm.queue_backpressure_percent` of it on.
    "llm.max_queued_requests_per_tenant" => llm_max_queued_requests_per_tenant: u32 = "1000", "requests, 1 to 100000" if |v| (1..=100_000).contains(&v);
    /// Fill level of a tenant's request queue from which on jobs send requests more slowly.
    "llm.queue_backpressure_percent" => llm_queue_backpressure_percent: u32 = "80", "percent, 1 to 100" if |v| (1..=100).contains(&v);
    /// Maximum number of attempts of a request at one provider before the next provider gets the request.
    "llm.max_attempts" => llm_max_attempts: u32 = "3", "attempts, 1 to 20" if |v| (1..=20).contains(&v);
    /// Maximum backoff before the second attempt. It doubles with each further attempt. Each backoff is a random time
    /// between 0 and its maximum.
    "llm.initial_backoff_millis" => llm_initial_backoff_millis: u32 = "1000", "milliseconds, 1 to 60000" if |v| (1..=60_000).contains(&v);
    /// Maximum backoff between two attempts, unless the provider asks for a longer one.
    "llm.max_backoff_seconds" => llm_max_backoff_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Maximum time for a request of a job, with all waiting and all attempts. It is long because a book with
    /// hundreds of chapters sends all its requests at once, and the last request waits for the others.
    "llm.request_deadline_seconds" => llm_request_deadline_seconds: u32 = "21600", "seconds, 1 to 86400"
        if |v| (1..=86_400).contains(&v);
    /// What happens to a request when every provider has failed: it waits until one recovers, or it fails.
    "llm.when_all_providers_fail" => llm_when_all_providers_fail: AllProvidersFailedAction = "wait", "wait or fail" if |_v| true;
    /// How long a provider gets no requests after it has denied one (wrong key, unknown model, exhausted quota). In
    /// that time, requests that no other provider can serve fail at once. The first request after it is sent to the
    /// provider again.
    "llm.denied_cooldown_seconds" => llm_denied_cooldown_seconds: u32 = "60", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Whether a circuit breaker stops requests to providers that fail.
    "llm.breaker_enabled" => llm_breaker_enabled: bool = "true", "true or false" if |_v| true;
    /// Share of a provider's latest calls that must fail to open its circuit breaker.
    "llm.breaker_error_percent" => llm_breaker_error_percent: u32 = "25", "percent, 1 to 100"
        if |v| (1..=100).contains(&v);
    /// 95th percentile of the duration of a provider's latest calls that opens its circuit breaker, if another
    /// provider can serve the requests.
    "llm.breaker_p95_latency_seconds" => llm_breaker_p95_latency_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Number of requests in backoff at a provider that opens its circuit breaker, if another provider can serve
    /// them.
    "llm.breaker_pending_retries_to_open" => llm_breaker_pending_retries_to_open: u32 = "15", "requests, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Minimum time that a circuit breaker stays open. It doubles each time that the breaker opens again at once.
    "llm.breaker_min_open_seconds" => llm_breaker_min_open_seconds: u32 = "120", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Number of calls that must succeed before a half-open circuit breaker closes.
    "llm.breaker_probes_to_close" => llm_breaker_probes_to_close: u32 = "3", "calls, 1 to 100" if |v| (1..=100).contains(&v);
    /// Whether the number of concurrent calls to a provider is reduced below its limit when more calls only increase
    /// the latency.
    "llm.adaptive_concurrency" => llm_adaptive_concurrency: bool = "true", "true or false" if |_v| true;
    /// Whether responses are cached, so that the same request is not sent again.
    "llm.response_cache" => llm_response_cache: bool = "true", "true or false" if |_v| true;
    /// Maximum bytes of cached responses.
    "llm.max_response_cache_bytes" => llm_max_response_cache_bytes: u64 = "67108864", "bytes, 65536 to 1099511627776"
        if |v| (1 << 16..=1 << 40).contains(&v);

    /// Maximum number of pages at vision models at once, on the whole host. The limit of a provider,
    /// `max_concurrent_requests`, can be lower.
    "vision.max_concurrent_pages" => vision_max_concurrent_pages: u32 = "5", "pages, 1 to 256" if |v| (1..=256).contains(&v);
    /// Maximum length of the longer side of a page image for a vision model, in pixels. Models scale larger images
    /// down themselves.
    "vision.max_image_side_pixels" => vision_max_image_side_pixels: u32 = "1568", "pixels, 256 to 8192"
        if |v| (256..=8192).contains(&v);
    /// Maximum number of tokens in the transcription of a page. A page with more tokens is reported as failed, not
    /// cut off.
    "vision.max_page_tokens" => vision_max_page_tokens: u32 = "4096", "tokens, 64 to 65536" if |v| (64..=65_536).contains(&v);
    /// Maximum time to transcribe a page, with all waiting and all attempts. After it the page is reported as failed.
    "vision.page_timeout_seconds" => vision_page_timeout_seconds: u32 = "600", "seconds, 1 to 86400"
        if |v| (1..=86_400).contains(&v);
    /// Prompt for the vision model, for a model that was trained with its own prompt. Empty: asks for the page as
    /// Markdown.
    "vision.prompt" => vision_prompt: String = "", "a text" if |_v| true;

    /// Maximum number of component instances at one time.
    "policy.max_component_instances" => policy_max_component_instances: u32 = "1000", "instances, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Maximum time for a component call, if the manifest does not set it.
    "policy.call_timeout_millis" => policy_call_timeout_millis: u32 = "50", "milliseconds, 1 to 60000" if |v| (1..=60_000).contains(&v);
    /// Maximum memory of a component instance, if the manifest does not set it.
    "policy.default_instance_memory_bytes" => policy_default_instance_memory_bytes: u64 = "33554432", "bytes, 1048576 to 67108864"
        if |v| (1 << 20..=64 << 20).contains(&v);
    /// Maximum bytes that a component returns from one call.
    "policy.max_call_output_bytes" => policy_max_call_output_bytes: u64 = "1048576", "bytes, 1024 to 67108864"
        if |v| (1 << 10..=64 << 20).contains(&v);
    /// Maximum CPU time to compile a component.
    "policy.max_compile_cpu_seconds" => policy_max_compile_cpu_seconds: u32 = "60", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Maximum memory to compile a component.
    "policy.max_compile_memory_bytes" => policy_max_compile_memory_bytes: u64 = "2147483648", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Maximum bytes of compiled components on disk. The least recently used are removed first and compiled again
    /// when they are needed.
    "policy.max_compiled_cache_bytes" => policy_max_compiled_cache_bytes: u64 = "8589934592", "bytes, 67108864 to 1099511627776"
        if |v| (64 << 20..=1 << 40).contains(&v);
    /// Maximum number of components in memory, those of running jobs included.
    "policy.max_loaded_components" => policy_max_loaded_components: u32 = "1000", "components, 1 to 100000"
        if |v| (1..=100_000).contains(&v);
    /// Whether the component calls of a job are recorded, so that the job can be replayed.
    "policy.record_calls" => policy_record_calls: bool = "true", "true or false" if |_v| true;
    /// Days after which the recording of a job is removed. 0: never.
    "policy.recording_retention_days" => policy_recording_retention_days: u32 = "30", "days, 0 to 36500" if |v| v <= 36_500;
    /// Maximum bytes of all recordings in the data folder, or of all nodes with an S3 server. The oldest are removed first. 0: no limit.
    "policy.max_recording_bytes" => policy_max_recording_bytes: u64 = "17179869184", "bytes, 0 or 67108864 to 1099511627776"
        if |v| v == 0 || (64 << 20..=1 << 40).contains(&v);

    /// Maximum running jobs of one tenant, if the tenant has no quota of its own. In this section 0 means no limit.
    "default_quota.concurrent_jobs" => default_quota_concurrent_jobs: u64 = "4", "jobs" if |_v| true;
    /// Maximum queued jobs of one tenant.
    "default_quota.queued_jobs" => default_quota_queued_jobs: u64 = "1000", "jobs" if |_v| true;
    /// Maximum HTTP requests of one tenant in a second, on average. Bursts of twice as many are accepted.
    "default_quota.requests_per_second" => default_quota_requests_per_second: u64 = "500", "requests" if |_v| true;
    /// Maximum bytes of one upload of a tenant.
    "default_quota.upload_bytes" => default_quota_upload_bytes: u64 = "0", "bytes" if |_v| true;
    /// Maximum pages of one tenant in a day (UTC).
    "default_quota.pages_per_day" => default_quota_pages_per_day: u64 = "0", "pages" if |_v| true;
    /// Maximum stored bytes of one tenant: uploads, components and the blobs of documents, such as page images.
    "default_quota.stored_bytes" => default_quota_stored_bytes: u64 = "0", "bytes" if |_v| true;
    /// Maximum milliseconds of model time of one tenant in a day (UTC).
    "default_quota.inference_millis_per_day" => default_quota_inference_millis_per_day: u64 = "0", "milliseconds" if |_v| true;
    /// Maximum milliseconds of CPU time of one tenant's components in a day (UTC).
    "default_quota.guest_millis_per_day" => default_quota_guest_millis_per_day: u64 = "0", "milliseconds" if |_v| true;
    /// Maximum calls to language models of one tenant in a day (UTC).
    "default_quota.llm_calls_per_day" => default_quota_llm_calls_per_day: u64 = "0", "calls" if |_v| true;
    /// Maximum language model tokens of one tenant in a day (UTC), prompts and responses together.
    "default_quota.llm_tokens_per_day" => default_quota_llm_tokens_per_day: u64 = "0", "tokens" if |_v| true;
    /// Maximum cost of these tokens in a day (UTC), in millionths of the currency of the providers' prices.
    "default_quota.llm_cost_micros_per_day" => default_quota_llm_cost_micros_per_day: u64 = "0", "millionths" if |_v| true;
    /// Maximum memory of one component instance of a tenant, in bytes. It applies if it is less than the pipeline's
    /// limit.
    "default_quota.guest_memory_bytes" => default_quota_guest_memory_bytes: u64 = "0", "bytes, 0 or 1048576 and more"
        if |v| v == 0 || v >= 1 << 20;

    /// Days after its end for which a job is kept, with its events, request, component log and recording, if the tenant has no
    /// period of its own. Its documents stay. In this section 0 means without limit.
    "default_retention.ended_jobs_days" => default_retention_ended_jobs_days: u32 = "30", "days, 0 to 36500" if |v| v <= 36_500;
    /// Days for which the usage of a day is kept.
    "default_retention.usage_days" => default_retention_usage_days: u32 = "400", "days, 0 to 36500" if |v| v <= 36_500;
    /// Days for which entries of the audit logs of pipelines are kept.
    "default_retention.audit_log_days" => default_retention_audit_log_days: u32 = "400", "days, 0 to 36500" if |v| v <= 36_500;
    /// Days for which an API key that was revoked or has expired is kept.
    "default_retention.revoked_keys_days" => default_retention_revoked_keys_days: u32 = "90", "days, 0 to 36500" if |v| v <= 36_500;

    /// Address and port that `weir serve` listens on.
    "server.listen_address" => server_listen_address: SocketAddr = "127.0.0.1:7070", "an address and a port" if |_v| true;
    /// File with the TLS certificate chain (PEM). Empty: plain HTTP.
    "server.tls_certificate_file" => server_tls_certificate_file: PathBuf = "", "a path" if |_v| true;
    /// File with the private key of the certificate (PEM).
    "server.tls_key_file" => server_tls_key_file: PathBuf = "", "a path" if |_v| true;
    /// Maximum number of open connections. Half of the process's file limit applies if that is less. At the limit a
    /// new connection replaces the connection that has been idle longest; if none is idle, the new connection is
    /// closed.
    "server.max_connections" => server_max_connections: u32 = "4096", "connections, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Maximum number of open connections from one IPv4 address or IPv6 network (/64). 0: no limit. Behind a reverse
    /// proxy all clients have the address of the proxy: set 0 there, and limit clients in the proxy.
    "server.max_connections_per_address" => server_max_connections_per_address: u32 = "2048", "connections, 0 to 1000000"
        if |v| v <= 1_000_000;
    /// Maximum time from accepting a connection to the end of its first request headers, TLS handshake included. The
    /// same limit applies from the end of a response to the end of the next request headers. Behind a reverse proxy
    /// that reuses connections it must be longer than the proxy's idle timeout.
    "server.header_timeout_seconds" => server_header_timeout_seconds: u32 = "10", "seconds, 1 to 600" if |v| (1..=600).contains(&v);
    /// Maximum time without a byte of an upload, or without a client reading a byte of a response. After it the
    /// connection is closed.
    "server.transfer_idle_timeout_seconds" => server_transfer_idle_timeout_seconds: u32 = "30", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// How long running jobs can continue when the host shuts down. They continue at the next start.
    "server.shutdown_grace_seconds" => server_shutdown_grace_seconds: u32 = "10", "seconds, 0 to 3600" if |v| v <= 3600;
    /// Maximum number of running jobs of all tenants.
    "server.max_running_jobs" => server_max_running_jobs: u32 = "8", "jobs, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Maximum number of queued jobs of all tenants. Further jobs are refused as overload.
    "server.max_queued_jobs" => server_max_queued_jobs: u32 = "10000", "jobs, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Maximum bytes of an upload that is queued as interactive and can get a latency boost, if the client requests no lane.
    "server.max_interactive_upload_bytes" => server_max_interactive_upload_bytes: u64 = "4194304", "bytes" if |_v| true;
    /// Maximum bytes of one upload, for every tenant.
    "server.max_upload_bytes" => server_max_upload_bytes: u64 = "2147483648", "bytes, 1024 to 1099511627776"
        if |v| (1 << 10..=1 << 40).contains(&v);
    /// Maximum number of files in one upload.
    "server.max_upload_files" => server_max_upload_files: u32 = "1000", "files, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Whether documents are fetched from URLs that clients give.
    "server.allow_url_fetch" => server_allow_url_fetch: bool = "true", "true or false" if |_v| true;
    /// Whether such URLs, and those of webhooks, can lead to private addresses. Only for tests and closed networks: a
    /// tenant can then reach every address that the host can reach.
    "server.allow_client_urls_to_private_addresses" => server_allow_client_urls_to_private_addresses: bool = "false", "true or false" if |_v| true;
    /// Maximum time to fetch one document from a URL.
    "server.fetch_timeout_seconds" => server_fetch_timeout_seconds: u32 = "120", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Minimum bytes of available memory to accept a job. Memory counts on the machine and within the control group
    /// limits (cgroups) of a container. 0: not checked.
    "server.min_free_memory_bytes" => server_min_free_memory_bytes: u64 = "268435456", "bytes" if |_v| true;
    /// Minimum free bytes on the disk of the data folder to accept an upload, so that jobs can continue.
    "server.min_free_disk_bytes" => server_min_free_disk_bytes: u64 = "67108864", "bytes" if |_v| true;
    /// Maximum time that jobs of a tenant wait although the tenant's own limits would allow one to run. After it new
    /// jobs are refused as overload. 0: not checked.
    "server.overload_queue_wait_seconds" => server_overload_queue_wait_seconds: u32 = "600", "seconds, 0 to 86400" if |v| v <= 86_400;
    /// Time between heartbeats on an event stream.
    "server.heartbeat_interval_seconds" => server_heartbeat_interval_seconds: u32 = "15", "seconds, 1 to 600"
        if |v| (1..=600).contains(&v);
    /// Access to `/metrics`: `open` for every client, `key` for API keys with the scope `admin`, or `off`.
    "server.metrics_access" => server_metrics_access: MetricsAccess = "key", "open, key or off" if |_v| true;
    /// Maximum number of open event streams of all tenants.
    "server.max_event_streams" => server_max_event_streams: u32 = "2048", "streams, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Maximum number of open event streams of one tenant.
    "server.max_event_streams_per_tenant" => server_max_event_streams_per_tenant: u32 = "512", "streams, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// How long a signed link to a page image or its lines is valid.
    "server.signed_link_lifetime_seconds" => server_signed_link_lifetime_seconds: u32 = "900", "seconds, 60 to 604800"
        if |v| (60..=604_800).contains(&v);

    /// Maximum number of queued queries.
    "query_stream.max_queued_queries" => query_stream_max_queued_queries: u32 = "1000", "queries, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// How long a query waits for others to fill a batch, while its tenant has a batch in progress.
    "query_stream.batch_linger_millis" => query_stream_batch_linger_millis: u32 = "100", "milliseconds, 0 to 10000" if |v| v <= 10_000;
    /// Maximum number of queries of one tenant that are embedded in one batch.
    "query_stream.max_batch_queries" => query_stream_max_batch_queries: u32 = "32", "queries, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// Maximum number of open query streams of all tenants.
    "query_stream.max_streams" => query_stream_max_streams: u32 = "10", "streams, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Maximum number of open query streams of one tenant. It is less than `query_stream.max_streams`, so that one
    /// tenant cannot use all of them.
    "query_stream.max_streams_per_tenant" => query_stream_max_streams_per_tenant: u32 = "8", "streams, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// Maximum time for a query, from its arrival to its results.
    "query_stream.query_timeout_seconds" => query_stream_query_timeout_seconds: u32 = "30", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);

    /// Maximum number of attempts to deliver a webhook.
    "webhook.max_attempts" => webhook_max_attempts: u32 = "8", "attempts, 1 to 20" if |v| (1..=20).contains(&v);
    /// Backoff before the second attempt to deliver a webhook. Each further backoff is four times as long, at most
    /// one day.
    "webhook.initial_backoff_seconds" => webhook_initial_backoff_seconds: u32 = "15", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Maximum time that the receiver of a webhook has to respond.
    "webhook.response_timeout_seconds" => webhook_response_timeout_seconds: u32 = "10", "seconds, 1 to 60" if |v| (1..=60).contains(&v);

    /// Maximum number of tenants with their own metric series. All others share the series `other`.
    "metrics.max_tenant_series" => metrics_max_tenant_series: u32 = "50", "tenants, 0 to 10000" if |v| v <= 10_000;

    /// Format of the log.
    "log.format" => log_format: LogFormat = "text", "text or json" if |_v| true;

    /// URL for traces (OTLP over HTTP), such as `http://127.0.0.1:4318/v1/traces`. Empty: no traces.
    "otel.traces_endpoint" => otel_traces_endpoint: String = "", "an http or https address"
        if |v| v.is_empty() || v.starts_with("http://") || v.starts_with("https://");
}

/// The URL is shown in several places, so it must not contain a password.
fn is_url_without_password(address: &str, schemes: [&str; 2]) -> bool {
    let rest = schemes.iter().find_map(|scheme| address.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        // A password may contain any character, and the host follows the last `@`.
        let has_password = rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        !rest.is_empty() && !has_password && !rest.contains("password=")
    })
}

fn is_postgres_url_without_password(address: &str) -> bool {
    is_url_without_password(address, ["postgres://", "postgresql://"])
}

fn is_redis_url_without_password(address: &str) -> bool {
    is_url_without_password(address, ["redis://", "rediss://"])
}
