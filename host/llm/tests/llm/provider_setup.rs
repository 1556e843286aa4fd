//! Providers from settings, and that their keys appear nowhere else.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::decision::{ComputeDevice, DeviceKind};
use weir_core::llm::LanguageModel as _;
use weir_core::ports::{Embedder, SchedulingContext};
use weir_core::settings::Settings;
use weir_llm::{CachedLanguageModel, ProviderSetupError, UsageAccounting, build_language_model};

use crate::fake_endpoint::{EndpointBehavior, FakeEndpoint};
use crate::fake_provider::build_request;

const TEST_KEY: &str = "sk-7f3a-never-to-be-seen";

/// An embedder for which texts of similar length are similar.
struct LengthEmbedder;

#[async_trait]
impl Embedder for LengthEmbedder {
    async fn embed_texts(
        &self,
        _: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        let vector = |text: &String| {
            let angle = text.len() as f32 / 100.0;
            vec![angle.cos(), angle.sin()]
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(text.split_whitespace().count() as u32)
    }

    fn vector_dimensions(&self) -> usize {
        2
    }

    fn max_input_tokens(&self) -> u32 {
        256
    }

    fn worker_count(&self) -> u32 {
        2
    }

    fn compute_device(&self) -> ComputeDevice {
        ComputeDevice {
            kind: DeviceKind::Cpu,
            memory_bytes: 0,
            cores: 1,
        }
    }
}

fn build_from_toml(toml: &str) -> Result<CachedLanguageModel, ProviderSetupError> {
    let mut settings = Settings::default();
    settings.merge_toml("weir.toml", toml).unwrap();
    let embedder: Arc<dyn Embedder> = Arc::new(LengthEmbedder);
    build_language_model(
        &settings,
        &embedder,
        None,
        UsageAccounting::default(),
        None,
        |name| (name == "THE_KEY").then(|| TEST_KEY.into()),
    )
}

#[tokio::test]
async fn default_provider_quotes_sentences() {
    let model = build_from_toml("").unwrap();
    let response = model
        .request_completion(build_request(
            "A weir raises the water. The water then turns the mill.",
        ))
        .await
        .unwrap();
    assert_eq!(
        (response.provider.as_str(), response.quotes.len()),
        ("extractive", 1)
    );
    assert!(!model.supports_images());
}

#[test]
fn setup_error_names_the_provider_without_its_key() {
    for (toml, message) in [
        (
            "kind = \"openai\"",
            "'far' cannot be set up: set its url and its model",
        ),
        (
            "url = \"http://x\"\nmodel = \"m\"\nkey_env = \"sk-pasted-here\"",
            "in its key_env is not set",
        ),
        (
            "url = \"http://x\"\nmodel = \"m\"\nkey_file = \"/no/such/file\"",
            "cannot read its key_file",
        ),
        #[cfg(not(feature = "local-llm"))]
        ("kind = \"local\"", "build weir with the feature local-llm"),
        #[cfg(feature = "local-llm")]
        ("kind = \"local\"", "set its file to a GGUF model"),
    ] {
        let error = build_from_toml(&format!("[[llm.provider]]\nname = \"far\"\n{toml}\n"))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(message) && !error.contains("pasted"), "{error}");
    }
}

/// Collects log output.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn key_is_sent_and_appears_nowhere_else() {
    let log = CapturedLog::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = metrics.handle();
    let _measuring = metrics::set_default_local_recorder(&metrics);

    // The endpoint repeats the key in several ways.
    let endpoint = FakeEndpoint::start(|number, _| {
        let error_body = format!("{{\"error\": {{\"message\": \"bad key {TEST_KEY}\"}}}}");
        match number {
            0..3 => EndpointBehavior::Status(500, Vec::new(), error_body),
            3 => EndpointBehavior::Status(401, Vec::new(), format!("who is {TEST_KEY}?")),
            4 => EndpointBehavior::Body(error_body),
            5 => EndpointBehavior::Events(vec![format!("\"{TEST_KEY}\"")]),
            _ => EndpointBehavior::Answer,
        }
    })
    .await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{TEST_KEY}").unwrap();
    let path = file.path().display();
    let provider = |name: &str, key: &str| {
        format!(
            "[[llm.provider]]\nname = \"{name}\"\nurl = \"{}\"\nmodel = \"m\"\n{key}\n",
            endpoint.url
        )
    };
    let toml = format!(
        "[llm]\ninitial_backoff_millis = 1\nwhen_all_providers_fail = \"fail\"\n{}{}",
        provider("by-env", "key_env = \"THE_KEY\""),
        provider("by-file", &format!("key_file = \"{path}\""))
    );
    let model = build_from_toml(&toml).unwrap();
    let mut said = String::new();
    let mut answered = 0;
    for i in 0..4 {
        match model.request_completion(build_request(format!("{i}"))).await {
            Ok(_) => answered += 1,
            Err(error) => said += &format!("{error} {error:?}"),
        }
    }
    said += &format!(
        "{:?} {}",
        model.router_stats(),
        serde_json::to_string(&model.router_stats()).unwrap()
    );
    said += &handle.render();
    said += &String::from_utf8_lossy(&log.0.lock().unwrap());

    let seen = endpoint.log.requests.lock();
    let bearer = format!("Bearer {TEST_KEY}");
    assert!(
        seen.iter()
            .all(|request| request.authorization.as_deref() == Some(&bearer))
    );
    assert!(seen.len() >= 7 && answered >= 1);
    assert!(
        said.contains("bad key ***") && said.contains("weir_llm_calls_total"),
        "{said}"
    );
    assert!(!said.contains(TEST_KEY) && !said.contains("7f3a"), "{said}");
}

#[tokio::test]
async fn denial_cooldown_setting_is_used() {
    let endpoint = FakeEndpoint::start(|number, _| match number {
        0 => EndpointBehavior::Status(401, Vec::new(), "no".into()),
        _ => EndpointBehavior::Answer,
    })
    .await;
    for (seconds, calls) in [(3600, 1), (1, 2)] {
        endpoint.log.requests.lock().clear();
        let model = build_from_toml(&format!(
            "[llm]\ndenied_cooldown_seconds = {seconds}\n[[llm.provider]]\nname = \"far\"\nurl = \"{}\"\nmodel = \"m\"\n",
            endpoint.url
        ))
        .unwrap();
        model.request_completion(build_request("a")).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(
            model.request_completion(build_request("b")).await.is_ok(),
            calls == 2
        );
        assert_eq!(endpoint.log.request_count(), calls);
    }
}
