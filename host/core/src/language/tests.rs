//! Requests, their rendering, and the errors of providers.

use super::*;
use crate::page::Lane;

fn question(prompt: &str, text: &str) -> Question {
    Question {
        account: Account {
            tenant: TenantId::single(),
            lane: Lane::Bulk,
            linger: Duration::ZERO,
            weight: 1.0,
        },
        kind: QuestionKind::Map,
        system: None,
        prompt: prompt.into(),
        text: text.into(),
        image: None,
        max_tokens: 100,
        patience: Duration::from_secs(1),
        document: None,
    }
}

#[test]
fn a_text_that_speaks_of_texts_is_not_filled_in_twice() {
    let question = question("Of this: {text}. Yes?", "so {text} it is");
    assert_eq!(question.rendered(), "Of this: so {text} it is. Yes?");
}

#[test]
fn what_is_asked_is_not_shown() {
    let shown = format!("{:?}", question("a private prompt", "a private text"));
    assert!(!shown.contains("private"), "{shown}");
}

#[test]
fn errors_name_every_provider() {
    let error = LanguageError::AllDown(vec![
        ("near".into(), Fault::Unreachable("connection refused".into())),
        ("far".into(), Fault::Late { seconds: 30 }),
    ]);
    assert_eq!(
        error.to_string(),
        "no language model answers: near cannot be reached: connection refused; far did not answer within 30 s"
    );
}

#[test]
fn there_is_nothing_to_quote_if_one_has_looked_and_the_others_had_nothing_either() {
    let down = |faults: &[Fault]| {
        let named = faults.iter().map(|fault| ("one".to_owned(), fault.clone()));
        LanguageError::AllDown(named.collect()).is_nothing_to_quote()
    };
    assert!(down(&[Fault::NothingToQuote]));
    assert!(down(&[Fault::Looped, Fault::NothingToQuote, Fault::Parroted]));
    assert!(!down(&[]));
    assert!(!down(&[Fault::Looped]));
    assert!(!down(&[Fault::NothingToQuote, Fault::BrokenOff]));
}

#[test]
fn denials_name_the_setting_and_the_reason() {
    let denied = |status, denial| {
        let reason = "no".into();
        (
            "far".to_owned(),
            Fault::Denied {
                status,
                denial,
                reason,
            },
        )
    };
    let one = |status, denial| LanguageError::AllDown(vec![denied(status, denial)]);
    let error = one(401, Denial::Authentication);
    assert_eq!(error.kind(), "language-denied");
    assert_eq!(
        error.to_string(),
        "no language model answers: far: authentication failed (401): no; check llm.provider.far.key_env or key_file"
    );
    for (denial, setting) in [
        (Denial::Permission, "llm.provider.far.model"),
        (Denial::NotFound, "llm.provider.far.model"),
        (Denial::Address, "llm.provider.far.url"),
        (Denial::Quota, "balance of the account of llm.provider.far"),
        (
            Denial::Parameter {
                setting: "temperature",
            },
            "llm.provider.far.temperature",
        ),
    ] {
        let message = one(400, denial).to_string();
        assert!(message.contains(setting), "{message}");
    }
    let down = ("near".to_owned(), Fault::BrokenOff);
    let mixed = LanguageError::AllDown(vec![denied(401, Denial::Authentication), down]);
    assert_eq!(mixed.kind(), "language-down");
}
