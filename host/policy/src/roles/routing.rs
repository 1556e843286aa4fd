//! The routing role: the collection of a document, how each page is read, and the action after a failure.

use weir_core::PriorityLane;
use weir_core::collection_and_labels::CollectionOrLabelError;
use weir_core::decision::PolicyFunctionInput as _;
use weir_core::decision::{
    DocumentFacts, DocumentRoute, FailureAction, ModelPreferences, PageRoute, PageStageFailure, PageToRoute,
    ReadingMethod,
};
use weir_core::id::is_valid_name;

use super::{GuestFunction, check_range, missing_export_error, wit_conversions};
use crate::bindings::routing;
use crate::instance::instance_data::LiveInstance;
use crate::recording::{PolicyFunctionCall, RecordedDecision};

/// Characters of a model's name.
const MAX_MODEL_NAME_CHARS: usize = 128;

impl GuestFunction for DocumentFacts {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Document;
    type RawDecision = routing::DocumentRoute;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<routing::DocumentRoute> {
        let guest = live
            .exports
            .routing
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let facts = routing::DocumentFacts {
            document: self.document.to_string(),
            name: self.name.clone(),
            bytes: self.bytes,
            pages: self.pages,
            title: self.title.clone(),
            outline_entries: self.outline_entries,
            first_pages: self
                .first_pages
                .iter()
                .map(wit_conversions::to_wit_page_facts)
                .collect(),
        };
        guest.call_document(&mut live.store, &facts).await
    }

    fn validate_decision(&self, raw_decision: routing::DocumentRoute) -> Result<DocumentRoute, String> {
        if !is_valid_name(&raw_decision.collection) {
            return Err(CollectionOrLabelError::InvalidCollection.to_string());
        }
        Ok(DocumentRoute {
            collection: raw_decision.collection,
            lane: match raw_decision.lane {
                routing::Lane::Interactive => PriorityLane::Interactive,
                routing::Lane::Bulk => PriorityLane::Bulk,
            },
            models: ModelPreferences {
                ocr: validate_model_name("ocr", raw_decision.models.ocr)?,
                text_embedding: validate_model_name("text-embedding", raw_decision.models.text_embedding)?,
            },
            labels: wit_conversions::from_wit_labels(raw_decision.labels)?,
        })
    }
}

/// Checks a model's name. It may become part of a path, so it must not contain characters with a meaning in paths.
fn validate_model_name(what: &str, model_name: Option<String>) -> Result<Option<String>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match model_name {
        Some(name) if !(1..=MAX_MODEL_NAME_CHARS).contains(&name.len()) || !name.chars().all(plain) => {
            Err(format!(
                "the name of the {what} model must have 1 to {MAX_MODEL_NAME_CHARS} characters of a-z, A-Z, 0-9, '-', '_' and '.'"
            ))
        }
        name => Ok(name),
    }
}

impl GuestFunction for PageToRoute {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Page;
    type RawDecision = routing::PageRoute;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<routing::PageRoute> {
        let guest = live
            .exports
            .routing
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let document = self.document.to_string();
        guest
            .call_page(
                &mut live.store,
                &document,
                wit_conversions::to_wit_page_facts(&self.facts),
            )
            .await
    }

    fn validate_decision(&self, raw_decision: routing::PageRoute) -> Result<PageRoute, String> {
        let reading = match raw_decision.reading {
            routing::Reading::TextLayer => ReadingMethod::TextLayer,
            routing::Reading::Ocr => ReadingMethod::Ocr,
            routing::Reading::VisionModel => ReadingMethod::VisionModel,
            routing::Reading::Nothing => ReadingMethod::Nothing,
        };
        if raw_decision.embed && reading == ReadingMethod::Nothing {
            return Err("embed is true for a page that is not read".into());
        }
        Ok(PageRoute {
            reading_method: reading,
            embed: raw_decision.embed,
            store: raw_decision.store,
            labels: wit_conversions::from_wit_labels(raw_decision.labels)?,
        })
    }
}

impl GuestFunction for PageStageFailure {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Failed;
    type RawDecision = routing::Verdict;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<routing::Verdict> {
        let guest = live
            .exports
            .routing
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let failure = routing::Failure {
            document: self.document.to_string(),
            page: self.page,
            stage: wit_conversions::to_wit_stage(self.stage),
            attempt: self.attempt,
            kind: self.kind.clone(),
            message: self.message.clone(),
        };
        guest.call_failed(&mut live.store, &failure).await
    }

    fn validate_decision(&self, raw_decision: routing::Verdict) -> Result<FailureAction, String> {
        Ok(match raw_decision {
            routing::Verdict::RetryAfter(millis) => {
                FailureAction::RetryAfter(check_range("retry-after", millis, 0, 60_000)?)
            }
            routing::Verdict::SkipPage => FailureAction::SkipPage,
            routing::Verdict::FailDocument => FailureAction::FailDocument,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::{DocumentId, PageFacts, Stage};

    #[test]
    fn document_route_with_an_invalid_name_is_rejected() {
        let facts = DocumentFacts {
            document: DocumentId::from_content(b"d"),
            name: "d.pdf".into(),
            bytes: 1,
            pages: 1,
            title: None,
            outline_entries: 0,
            first_pages: Vec::new(),
        };
        let good = routing::DocumentRoute {
            collection: "reports-7".into(),
            lane: routing::Lane::Bulk,
            models: routing::ModelPreferences {
                ocr: Some("PP-OCRv6".into()),
                text_embedding: None,
            },
            labels: Vec::new(),
        };
        assert_eq!(
            facts.validate_decision(good.clone()).unwrap().lane,
            PriorityLane::Bulk
        );
        for collection in ["", "Reports", "a/b", &"x".repeat(65)] {
            let wrong = routing::DocumentRoute {
                collection: collection.into(),
                ..good.clone()
            };
            assert!(facts.validate_decision(wrong).unwrap_err().contains("collection"));
        }
        for name in ["", "../../etc/passwd", "a b", "a\n"] {
            let mut wrong = good.clone();
            wrong.models.ocr = Some(name.into());
            assert!(
                facts.validate_decision(wrong).unwrap_err().contains("ocr model"),
                "{name}"
            );
        }
    }

    #[test]
    fn embedding_an_unread_page_is_rejected() {
        let page = PageToRoute {
            document: DocumentId::from_content(b"d"),
            facts: PageFacts {
                number: 1,
                width: 1.0,
                height: 1.0,
                text_chars: 0,
                image_coverage: 0.0,
                readable: true,
            },
        };
        let route_with_embed = |embed| routing::PageRoute {
            reading: routing::Reading::Nothing,
            embed,
            store: true,
            labels: Vec::new(),
        };
        assert!(page.validate_decision(route_with_embed(false)).is_ok());
        assert!(
            page.validate_decision(route_with_embed(true))
                .unwrap_err()
                .contains("embed")
        );
    }

    #[test]
    fn retry_delay_over_a_minute_is_rejected() {
        let failure = PageStageFailure {
            document: DocumentId::from_content(b"d"),
            page: 1,
            stage: Stage::Read,
            attempt: 1,
            kind: "model-failed".into(),
            message: "m".into(),
        };
        assert_eq!(
            failure
                .validate_decision(routing::Verdict::RetryAfter(60_000))
                .unwrap(),
            FailureAction::RetryAfter(60_000)
        );
        assert!(
            failure
                .validate_decision(routing::Verdict::RetryAfter(60_001))
                .is_err()
        );
    }
}
