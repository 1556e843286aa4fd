//! Names of settings that are not declared: former names, so that an old configuration fails with the new name instead of being
//! ignored, and unknown names.

use super::setting_type::{SettingDeclaration, SettingError, environment_variable_of_setting};

/// Former and present names.
const RENAMED_SETTINGS: &[(&str, &str)] = &[
    ("paths.components", "paths.default_components"),
    ("raster.workers", "raster.worker_processes"),
    ("raster.image_bytes", "raster.max_total_image_bytes"),
    ("raster.page_bytes", "raster.max_page_image_bytes"),
    ("raster.page_seconds", "raster.page_timeout_seconds"),
    ("raster.stall_seconds", "raster.stall_timeout_seconds"),
    ("raster.recycle_pages", "raster.max_pages_per_worker"),
    ("raster.worker_bytes", "raster.max_worker_memory_bytes"),
    ("raster.sandbox", "raster.sandbox_mode"),
    ("raster.max_pages", "raster.max_document_pages"),
    ("inference.embed_workers", "inference.embedding_workers"),
    ("inference.batch", "inference.max_embedding_batch_texts"),
    (
        "inference.linger_millis",
        "inference.embedding_batch_linger_millis",
    ),
    ("inference.queue", "inference.max_queued_requests_per_tenant"),
    ("inference.quantized", "inference.use_quantized_model"),
    ("engine.documents", "engine.max_concurrent_documents_per_job"),
    ("engine.store_workers", "engine.image_store_workers"),
    ("engine.upsert_workers", "engine.index_upsert_workers"),
    ("engine.commit_millis", "engine.ledger_commit_interval_millis"),
    ("engine.commit_entries", "engine.ledger_entries_per_commit"),
    ("engine.cancel_millis", "engine.cancel_timeout_millis"),
    ("engine.head_start_millis", "engine.latency_boost_millis"),
    ("llm.queue", "llm.max_queued_requests_per_tenant"),
    ("llm.slow_percent", "llm.queue_backpressure_percent"),
    ("llm.tries", "llm.max_attempts"),
    ("llm.pause_millis", "llm.initial_backoff_millis"),
    ("llm.max_pause_seconds", "llm.max_backoff_seconds"),
    ("llm.patience_seconds", "llm.request_deadline_seconds"),
    ("llm.when_down", "llm.when_all_providers_fail"),
    ("llm.denied_seconds", "llm.denied_cooldown_seconds"),
    ("llm.breaker", "llm.breaker_enabled"),
    ("llm.breaker_p95_seconds", "llm.breaker_p95_latency_seconds"),
    ("llm.breaker_queue", "llm.breaker_pending_retries_to_open"),
    ("llm.breaker_probes", "llm.breaker_probes_to_close"),
    ("llm.adaptive", "llm.adaptive_concurrency"),
    ("llm.cache", "llm.response_cache"),
    ("llm.cache_bytes", "llm.max_response_cache_bytes"),
    ("vision.workers", "vision.max_concurrent_pages"),
    ("vision.longest_side", "vision.max_image_side_pixels"),
    ("vision.max_tokens", "vision.max_page_tokens"),
    ("vision.patience_seconds", "vision.page_timeout_seconds"),
    ("policy.instances", "policy.max_component_instances"),
    ("policy.call_millis", "policy.call_timeout_millis"),
    ("policy.memory_bytes", "policy.default_instance_memory_bytes"),
    ("policy.output_bytes", "policy.max_call_output_bytes"),
    ("policy.compile_seconds", "policy.max_compile_cpu_seconds"),
    ("policy.compile_bytes", "policy.max_compile_memory_bytes"),
    ("policy.cache_bytes", "policy.max_compiled_cache_bytes"),
    ("policy.loaded_components", "policy.max_loaded_components"),
    ("policy.record", "policy.record_calls"),
    ("policy.record_days", "policy.recording_retention_days"),
    ("policy.record_bytes", "policy.max_recording_bytes"),
    ("server.listen", "server.listen_address"),
    ("server.tls_certificate", "server.tls_certificate_file"),
    ("server.tls_key", "server.tls_key_file"),
    ("server.connections", "server.max_connections"),
    ("server.address_connections", "server.max_connections_per_address"),
    ("server.header_seconds", "server.header_timeout_seconds"),
    ("server.stall_seconds", "server.transfer_idle_timeout_seconds"),
    ("server.grace_seconds", "server.shutdown_grace_seconds"),
    ("server.jobs", "server.max_running_jobs"),
    ("server.queue", "server.max_queued_jobs"),
    ("server.interactive_bytes", "server.max_interactive_upload_bytes"),
    ("server.upload_bytes", "server.max_upload_bytes"),
    ("server.upload_files", "server.max_upload_files"),
    ("server.fetch", "server.allow_url_fetch"),
    (
        "server.fetch_private",
        "server.allow_client_urls_to_private_addresses",
    ),
    ("server.fetch_seconds", "server.fetch_timeout_seconds"),
    ("server.min_free_bytes", "server.min_free_memory_bytes"),
    ("server.max_wait_seconds", "server.overload_queue_wait_seconds"),
    ("server.heartbeat_seconds", "server.heartbeat_interval_seconds"),
    ("server.metrics", "server.metrics_access"),
    ("server.streams", "server.max_event_streams"),
    ("server.tenant_streams", "server.max_event_streams_per_tenant"),
    ("server.link_seconds", "server.signed_link_lifetime_seconds"),
    ("stream.capacity", "query_stream.max_queued_queries"),
    ("stream.linger_millis", "query_stream.batch_linger_millis"),
    ("stream.batch", "query_stream.max_batch_queries"),
    ("stream.streams", "query_stream.max_streams"),
    ("stream.tenant_streams", "query_stream.max_streams_per_tenant"),
    ("stream.seconds", "query_stream.query_timeout_seconds"),
    ("webhook.tries", "webhook.max_attempts"),
    ("webhook.pause_seconds", "webhook.initial_backoff_seconds"),
    ("webhook.seconds", "webhook.response_timeout_seconds"),
    ("metrics.tenants", "metrics.max_tenant_series"),
    ("otel.endpoint", "otel.traces_endpoint"),
    ("llm.provider.file", "llm.provider.model_file"),
    ("llm.provider.context", "llm.provider.context_tokens"),
    ("llm.provider.vision", "llm.provider.supports_images"),
    ("llm.provider.spare", "llm.provider.fallback"),
    ("llm.provider.concurrency", "llm.provider.max_concurrent_requests"),
    (
        "llm.provider.timeout_seconds",
        "llm.provider.call_timeout_seconds",
    ),
    ("llm.provider.stall_seconds", "llm.provider.stall_timeout_seconds"),
    ("llm.provider.stream", "llm.provider.stream_responses"),
    ("llm.provider.token_limit", "llm.provider.token_limit_parameter"),
    (
        "llm.provider.prompt_price",
        "llm.provider.prompt_price_per_million",
    ),
    (
        "llm.provider.answer_price",
        "llm.provider.completion_price_per_million",
    ),
    (
        "server.max_queue_wait_seconds",
        "server.overload_queue_wait_seconds",
    ),
    (
        "server.allow_private_addresses",
        "server.allow_client_urls_to_private_addresses",
    ),
    ("llm.request_timeout_seconds", "llm.request_deadline_seconds"),
    (
        "llm.breaker_max_pending_retries",
        "llm.breaker_pending_retries_to_open",
    ),
    ("llm.breaker_open_seconds", "llm.breaker_min_open_seconds"),
    (
        "engine.commit_interval_millis",
        "engine.ledger_commit_interval_millis",
    ),
    ("engine.max_commit_entries", "engine.ledger_entries_per_commit"),
    ("inference.max_batch_texts", "inference.max_embedding_batch_texts"),
    (
        "inference.batch_linger_millis",
        "inference.embedding_batch_linger_millis",
    ),
    ("policy.max_instances", "policy.max_component_instances"),
    ("policy.max_output_bytes", "policy.max_call_output_bytes"),
    (
        "policy.max_instance_memory_bytes",
        "policy.default_instance_memory_bytes",
    ),
    ("quota.concurrent_jobs", "default_quota.concurrent_jobs"),
    ("quota.queued_jobs", "default_quota.queued_jobs"),
    ("quota.requests_per_second", "default_quota.requests_per_second"),
    ("quota.upload_bytes", "default_quota.upload_bytes"),
    ("quota.pages_per_day", "default_quota.pages_per_day"),
    ("quota.stored_bytes", "default_quota.stored_bytes"),
    (
        "quota.inference_millis_per_day",
        "default_quota.inference_millis_per_day",
    ),
    ("quota.guest_millis_per_day", "default_quota.guest_millis_per_day"),
    ("quota.llm_calls_per_day", "default_quota.llm_calls_per_day"),
    ("quota.llm_tokens_per_day", "default_quota.llm_tokens_per_day"),
    (
        "quota.llm_cost_micros_per_day",
        "default_quota.llm_cost_micros_per_day",
    ),
    ("quota.guest_memory_bytes", "default_quota.guest_memory_bytes"),
];

/// Returns the present name of a setting that had the name `name` before.
fn current_setting_name(name: &str) -> Option<&'static str> {
    RENAMED_SETTINGS
        .iter()
        .find(|(former, _)| *former == name)
        .map(|(_, present)| *present)
}

/// Returns the former names of settings.
pub(super) fn all_former_setting_names() -> impl Iterator<Item = &'static str> {
    RENAMED_SETTINGS.iter().map(|(former, _)| *former)
}

/// Returns the former and the present name of the setting that had the environment variable `variable` before.
pub(super) fn renamed_setting_of_variable(variable: &str) -> Option<(&'static str, &'static str)> {
    RENAMED_SETTINGS
        .iter()
        .find(|(former, _)| environment_variable_of_setting(former) == variable)
        .copied()
}

/// Returns the error for a name that is not declared.
pub(super) fn unknown_setting_error(declarations: &'static [SettingDeclaration], name: &str) -> SettingError {
    match current_setting_name(name) {
        Some(present) => SettingError::Renamed {
            name: name.to_owned(),
            present,
        },
        None => SettingError::UnknownSetting {
            name: name.to_owned(),
            hint: suggest_setting(declarations, name),
        },
    }
}

/// Returns the setting with the most similar name, or with the most similar key in any section.
fn suggest_setting(declarations: &'static [SettingDeclaration], name: &str) -> Option<&'static str> {
    /// Names that differ in a few letters, and a part of a name, are more similar than this.
    const MIN_SIMILARITY: f64 = 0.85;
    let scored = declarations.iter().map(|d| {
        let key = strsim::jaro_winkler(key_without_section(d.name), key_without_section(name));
        (strsim::jaro_winkler(d.name, name).max(key), d.name)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .map(|(_, name)| name)
}

fn key_without_section(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::{DECLARATIONS, PROVIDER_DECLARATIONS, Settings};
    use super::*;

    #[test]
    fn renamed_settings_exist_under_their_present_names_only() {
        let declared: Vec<_> = DECLARATIONS
            .iter()
            .chain(PROVIDER_DECLARATIONS)
            .map(|declaration| declaration.name)
            .collect();
        for (former, present) in RENAMED_SETTINGS {
            assert!(declared.contains(present), "{present}");
            assert!(!declared.contains(former), "{former}");
        }
    }

    #[test]
    fn former_name_fails_with_the_present_name() {
        let mut settings = Settings::default();
        let error = settings.set("raster.page_seconds", "5").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the setting 'raster.page_seconds' was renamed to 'raster.page_timeout_seconds'"
        );
        let error = settings.set("llm.provider.far.file", "x.gguf").unwrap_err();
        assert_eq!(
            error.to_string(),
            "provider 'far': the setting 'llm.provider.file' was renamed to 'llm.provider.model_file'"
        );
        let error = settings
            .merge_toml("weir.toml", "[stream]\nbatch = 3")
            .unwrap_err();
        assert!(
            matches!(error, SettingError::Renamed { present, .. } if present == "query_stream.max_batch_queries")
        );
        for variable in ["WEIR_SERVER_LISTEN", "WEIR_LLM_PROVIDER_FAR_SPARE"] {
            let variables = [(variable.to_owned(), "true".to_owned())];
            let error = settings.merge_environment(variables).unwrap_err();
            assert!(
                error.to_string().contains("was renamed to"),
                "{variable}: {error}"
            );
        }
    }
}
