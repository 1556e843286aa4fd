//! Providers from settings, and where their keys do not show up.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::decision::Device;
use weir_core::language::LanguageModel as _;
use weir_core::ports::{Account, Embedder};
use weir_core::settings::Settings;
use weir_llm::{Accounts, Answers, SetUpError, from_settings};

use crate::endpoint::{Act, Endpoint};
use crate::fakes::question;

const KEY: &str = "sk-7f3a-never-to-be-seen";

/// As alike as long.
struct Lengths;

#[async_trait]
impl Embedder for Lengths {
    async fn embed(&self, _: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        let vector = |text: &String| {
            let angle = text.len() as f32 / 100.0;
            vec![angle.cos(), angle.sin()]
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(text.split_whitespace().count() as u32)
    }

    fn dimensions(&self) -> usize {
        2
    }

    fn max_tokens(&self) -> u32 {
        256
    }

    fn workers(&self) -> u32 {
        2
    }

    fn device(&self) -> Device {
        Device {
            gpu: false,
            memory_bytes: 0,
            cores: 1,
        }
    }
}

fn set_up(toml: &str) -> Result<Answers, SetUpError> {
    let mut settings = Settings::default();
    settings.merge_toml("weir.toml", toml).unwrap();
    let embedder: Arc<dyn Embedder> = Arc::new(Lengths);
    from_settings(&settings, &embedder, None, Accounts::default(), |name| {
        (name == "THE_KEY").then(|| KEY.into())
    })
}

#[tokio::test]
async fn without_settings_sentences_are_quoted() {
    let answers = set_up("").unwrap();
    let answer = answers
        .ask(question(
            "A weir raises the water. The water then turns the mill.",
        ))
        .await
        .unwrap();
    assert_eq!((answer.provider.as_str(), answer.quotes.len()), ("extractive", 1));
    assert!(!answers.sees());
}

#[test]
fn what_cannot_be_set_up_is_named_without_its_key() {
    for (toml, words) in [
        (
            "kind = \"openai\"",
            "'far' cannot be set up: give its url and its model",
        ),
        (
            "url = \"http://x\"\nmodel = \"m\"\nkey_env = \"sk-pasted-here\"",
            "key_env names is not set",
        ),
        (
            "url = \"http://x\"\nmodel = \"m\"\nkey_file = \"/no/such/file\"",
            "its key_file cannot be read",
        ),
        #[cfg(not(feature = "local-llm"))]
        ("kind = \"local\"", "build it with the feature local-llm"),
        #[cfg(feature = "local-llm")]
        ("kind = \"local\"", "give its file, a GGUF model"),
    ] {
        let error = set_up(&format!("[[llm.provider]]\nname = \"far\"\n{toml}\n"))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words) && !error.contains("pasted"), "{error}");
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_is_sent_and_otherwise_nowhere() {
    let log = Log::default();
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

    // The endpoint repeats the key in every way it can.
    let endpoint = Endpoint::start(|number, _| {
        let words = format!("{{\"error\": {{\"message\": \"bad key {KEY}\"}}}}");
        match number {
            0..3 => Act::Status(500, Vec::new(), words),
            3 => Act::Status(401, Vec::new(), format!("who is {KEY}?")),
            4 => Act::Whole(words),
            5 => Act::Events(vec![format!("\"{KEY}\"")]),
            _ => Act::Answer,
        }
    })
    .await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{KEY}").unwrap();
    let path = file.path().display();
    let provider = |name: &str, key: &str| {
        format!(
            "[[llm.provider]]\nname = \"{name}\"\nurl = \"{}\"\nmodel = \"m\"\n{key}\n",
            endpoint.url
        )
    };
    let toml = format!(
        "[llm]\npause_millis = 1\nwhen_down = \"fail\"\n{}{}",
        provider("by-env", "key_env = \"THE_KEY\""),
        provider("by-file", &format!("key_file = \"{path}\""))
    );
    let answers = set_up(&toml).unwrap();
    let mut said = String::new();
    let mut answered = 0;
    for i in 0..4 {
        match answers.ask(question(format!("{i}"))).await {
            Ok(_) => answered += 1,
            Err(error) => said += &format!("{error} {error:?}"),
        }
    }
    said += &format!(
        "{:?} {}",
        answers.stats(),
        serde_json::to_string(&answers.stats()).unwrap()
    );
    said += &handle.render();
    said += &String::from_utf8_lossy(&log.0.lock().unwrap());

    let seen = endpoint.seen.requests.lock();
    let bearer = format!("Bearer {KEY}");
    assert!(
        seen.iter()
            .all(|request| request.authorization.as_deref() == Some(&bearer))
    );
    assert!(seen.len() >= 7 && answered >= 1);
    assert!(
        said.contains("bad key ***") && said.contains("weir_llm_calls_total"),
        "{said}"
    );
    assert!(!said.contains(KEY) && !said.contains("7f3a"), "{said}");
}

#[tokio::test]
async fn denied_seconds_of_the_settings_are_the_pause() {
    let endpoint = Endpoint::start(|number, _| match number {
        0 => Act::Status(401, Vec::new(), "no".into()),
        _ => Act::Answer,
    })
    .await;
    for (seconds, calls) in [(3600, 1), (1, 2)] {
        endpoint.seen.requests.lock().clear();
        let answers = set_up(&format!(
            "[llm]\ndenied_seconds = {seconds}\n[[llm.provider]]\nname = \"far\"\nurl = \"{}\"\nmodel = \"m\"\n",
            endpoint.url
        ))
        .unwrap();
        answers.ask(question("a")).await.unwrap_err();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(answers.ask(question("b")).await.is_ok(), calls == 2);
        assert_eq!(endpoint.seen.count(), calls);
    }
}
