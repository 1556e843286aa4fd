//! Where a document goes, how each page is read, and what follows a failure.

use weir_core::decision::{DocumentFacts, DocumentRoute, Failure, PageRoute, Reading, Verdict};
use weir_core::event::ErrorNote;
use weir_core::filing::FilingError;
use weir_core::id::is_name;
use weir_core::manifest::Role;
use weir_core::page::PageFacts;
use weir_core::{DocumentId, Lane};

use super::{Decision, missing, within, words};
use crate::bindings::routing;
use crate::live::Live;
use crate::recording::Exchange;

/// Characters of a model's name.
const MODEL_NAME: usize = 128;

impl Decision for DocumentFacts {
    const ROLE: Role = Role::Routing;
    const FUNCTION: &'static str = "routing.document";
    type Said = routing::DocumentRoute;
    type Answer = DocumentRoute;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<routing::DocumentRoute> {
        let guest = live.roles.routing.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        let facts = routing::DocumentFacts {
            document: self.document.to_string(),
            name: self.name.clone(),
            bytes: self.bytes,
            pages: self.pages,
            title: self.title.clone(),
            outline_entries: self.outline_entries,
            first_pages: self.first_pages.iter().map(words::page_facts).collect(),
        };
        guest.call_document(&mut live.store, &facts).await
    }

    fn check(&self, said: routing::DocumentRoute) -> Result<DocumentRoute, String> {
        if !is_name(&said.collection) {
            return Err(FilingError::Collection.to_string());
        }
        Ok(DocumentRoute {
            collection: said.collection,
            lane: match said.lane {
                routing::Lane::Interactive => Lane::Interactive,
                routing::Lane::Bulk => Lane::Bulk,
            },
            ocr_model: model("ocr", said.models.ocr)?,
            embedding_model: model("text-embedding", said.models.text_embedding)?,
            labels: words::labels(said.labels)?,
        })
    }

    fn exchange(self, answer: Result<DocumentRoute, ErrorNote>) -> Exchange {
        Exchange::Document(self, answer)
    }
}

/// A model's name may end up in a path, so it is made of characters that mean nothing there.
fn model(what: &str, said: Option<String>) -> Result<Option<String>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match said {
        Some(name) if !(1..=MODEL_NAME).contains(&name.len()) || !name.chars().all(plain) => Err(format!(
            "the {what} model is not named by 1 to {MODEL_NAME} of the characters a-z, A-Z, 0-9, '-', '_' and '.'"
        )),
        name => Ok(name),
    }
}

/// A page, to be routed.
#[derive(Clone, Copy)]
pub(crate) struct PageFound {
    pub(crate) document: DocumentId,
    pub(crate) facts: PageFacts,
}

impl Decision for PageFound {
    const ROLE: Role = Role::Routing;
    const FUNCTION: &'static str = "routing.page";
    type Said = routing::PageRoute;
    type Answer = PageRoute;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<routing::PageRoute> {
        let guest = live.roles.routing.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        let document = self.document.to_string();
        guest
            .call_page(&mut live.store, &document, words::page_facts(&self.facts))
            .await
    }

    fn check(&self, said: routing::PageRoute) -> Result<PageRoute, String> {
        let reading = match said.reading {
            routing::Reading::TextLayer => Reading::TextLayer,
            routing::Reading::Ocr => Reading::Ocr,
            routing::Reading::VisionModel => Reading::VisionModel,
            routing::Reading::Nothing => Reading::Nothing,
        };
        if said.embed && reading == Reading::Nothing {
            return Err("embed is wanted for a page of which nothing is read".into());
        }
        Ok(PageRoute {
            reading,
            embed: said.embed,
            store: said.store,
            labels: words::labels(said.labels)?,
        })
    }

    fn exchange(self, answer: Result<PageRoute, ErrorNote>) -> Exchange {
        Exchange::Page(self.document, self.facts, answer)
    }
}

impl Decision for Failure {
    const ROLE: Role = Role::Routing;
    const FUNCTION: &'static str = "routing.failed";
    type Said = routing::Verdict;
    type Answer = Verdict;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<routing::Verdict> {
        let guest = live.roles.routing.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        let failure = routing::Failure {
            document: self.document.to_string(),
            page: self.page,
            stage: words::stage(self.stage),
            attempt: self.attempt,
            kind: self.kind.clone(),
            message: self.message.clone(),
        };
        guest.call_failed(&mut live.store, &failure).await
    }

    fn check(&self, said: routing::Verdict) -> Result<Verdict, String> {
        Ok(match said {
            routing::Verdict::RetryAfter(millis) => {
                Verdict::RetryAfter(within("retry-after", millis, 0, 60_000)?)
            }
            routing::Verdict::SkipPage => Verdict::SkipPage,
            routing::Verdict::FailDocument => Verdict::FailDocument,
        })
    }

    fn exchange(self, answer: Result<Verdict, ErrorNote>) -> Exchange {
        Exchange::Failed(self, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::Stage;

    #[test]
    fn a_document_goes_to_a_named_collection() {
        let facts = DocumentFacts {
            document: DocumentId::of(b"d"),
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
        assert_eq!(facts.check(good.clone()).unwrap().lane, Lane::Bulk);
        for collection in ["", "Reports", "a/b", &"x".repeat(65)] {
            let wrong = routing::DocumentRoute {
                collection: collection.into(),
                ..good.clone()
            };
            assert!(facts.check(wrong).unwrap_err().contains("collection"));
        }
        for name in ["", "../../etc/passwd", "a b", "a\n"] {
            let mut wrong = good.clone();
            wrong.models.ocr = Some(name.into());
            assert!(facts.check(wrong).unwrap_err().contains("ocr model"), "{name}");
        }
    }

    #[test]
    fn nothing_read_is_nothing_embedded() {
        let page = PageFound {
            document: DocumentId::of(b"d"),
            facts: PageFacts {
                number: 1,
                width: 1.0,
                height: 1.0,
                text_chars: 0,
                image_coverage: 0.0,
                readable: true,
            },
        };
        let said = |embed| routing::PageRoute {
            reading: routing::Reading::Nothing,
            embed,
            store: true,
            labels: Vec::new(),
        };
        assert!(page.check(said(false)).is_ok());
        assert!(page.check(said(true)).unwrap_err().contains("embed"));
    }

    #[test]
    fn a_retry_waits_a_minute_at_most() {
        let failure = Failure {
            document: DocumentId::of(b"d"),
            page: 1,
            stage: Stage::Read,
            attempt: 1,
            kind: "model-failed".into(),
            message: "m".into(),
        };
        assert_eq!(
            failure.check(routing::Verdict::RetryAfter(60_000)).unwrap(),
            Verdict::RetryAfter(60_000)
        );
        assert!(failure.check(routing::Verdict::RetryAfter(60_001)).is_err());
    }
}
