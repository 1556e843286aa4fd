//! Labels and the collection that documents are filed under.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::decision::{DocumentRoute, Label};
use crate::id::is_name;

/// Labels of a document or a page. Each is stored with every passage, so a long one would be multiplied by thousands.
const LABELS: usize = 16;
/// Bytes of a label's name.
const LABEL_NAME: RangeInclusive<usize> = 1..=64;
/// Most bytes of a label's value.
pub const LABEL_VALUE: usize = 1024;

/// A collection or labels out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilingError {
    /// Too many labels.
    #[error("{0} labels, more than {LABELS}")]
    TooManyLabels(usize),
    /// A label's name is empty, too long or has control characters.
    #[error("the name of a label is not {} to {} bytes of plain text", LABEL_NAME.start(), LABEL_NAME.end())]
    LabelName,
    /// A label's value is too long.
    #[error("the value of label '{0}' is longer than {LABEL_VALUE} bytes")]
    LabelValue(String),
    /// No name of a collection.
    #[error("the collection is not named by 1 to 64 of the characters a-z, 0-9, '-' and '_'")]
    Collection,
}

/// Checks that labels are few and short.
pub fn check_labels(labels: &[Label]) -> Result<(), FilingError> {
    if labels.len() > LABELS {
        return Err(FilingError::TooManyLabels(labels.len()));
    }
    for (name, value) in labels {
        if !LABEL_NAME.contains(&name.len()) || name.contains(char::is_control) {
            return Err(FilingError::LabelName);
        }
        if value.len() > LABEL_VALUE {
            return Err(FilingError::LabelValue(name.clone()));
        }
    }
    Ok(())
}

/// Collection and labels that a job asks for its documents, beside those of the pipeline's routing.
///
/// The job's collection stands over that of the routing, as its lane does: it is named for these very documents. A label of
/// the routing stands over one of the job by the same name, since the routing may tell what a client may not decide. Neither
/// can name a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filing {
    /// Collection of the documents; `None` leaves it as it was, or to the routing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Labels of the documents, at most 16; `None` leaves them as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Label>>,
}

impl Filing {
    /// Checks names and limits, those of the routing component's answers.
    pub fn check(&self) -> Result<(), FilingError> {
        if self.collection.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(FilingError::Collection);
        }
        check_labels(self.labels.as_deref().unwrap_or_default())
    }

    /// Whether nothing is asked.
    pub const fn is_empty(&self) -> bool {
        self.collection.is_none() && self.labels.is_none()
    }

    /// Takes from `earlier` what is not asked here.
    pub fn or(self, earlier: Self) -> Self {
        Self {
            collection: self.collection.or(earlier.collection),
            labels: self.labels.or(earlier.labels),
        }
    }

    /// Files a document as it is asked.
    pub fn apply(&self, route: &mut DocumentRoute) {
        if let Some(collection) = &self.collection {
            route.collection.clone_from(collection);
        }
        let own = route.labels.len();
        for label in self.labels.iter().flatten() {
            let routed = route.labels.get(..own).unwrap_or_default();
            if !routed.iter().any(|(name, _)| *name == label.0) {
                route.labels.push(label.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lane;

    fn label(name: &str, value: &str) -> Label {
        (name.into(), value.into())
    }

    #[test]
    fn labels_are_few_and_short() {
        assert_eq!(check_labels(&[label("a", "")]), Ok(()));
        for wrong in [
            vec![label("a", "b"); 17],
            vec![label("", "b")],
            vec![label("a\n", "b")],
            vec![label(&"a".repeat(65), "b")],
            vec![label("a", &"b".repeat(1025))],
        ] {
            assert!(check_labels(&wrong).is_err(), "{wrong:?}");
        }
        for collection in ["", "Reports", "a/b", "tenant b"] {
            let filing = Filing {
                collection: Some(collection.into()),
                labels: None,
            };
            assert_eq!(filing.check(), Err(FilingError::Collection));
        }
    }

    #[test]
    fn job_names_the_collection_and_routing_keeps_its_labels() {
        let mut route = DocumentRoute {
            collection: "default".into(),
            lane: Lane::Bulk,
            ocr_model: None,
            embedding_model: None,
            labels: vec![label("class", "secret")],
        };
        Filing::default().apply(&mut route);
        assert_eq!((route.collection.as_str(), route.labels.len()), ("default", 1));
        let filing = Filing {
            collection: Some("reports".into()),
            labels: Some(vec![label("class", "public"), label("team", "north")]),
        };
        filing.apply(&mut route);
        assert_eq!(route.collection, "reports");
        assert_eq!(route.labels, [label("class", "secret"), label("team", "north")]);
    }

    #[test]
    fn filing_not_asked_is_the_earlier_one() {
        let earlier = Filing {
            collection: Some("a".into()),
            labels: Some(vec![label("team", "north")]),
        };
        assert_eq!(Filing::default().or(earlier.clone()), earlier);
        let none = Filing {
            collection: None,
            labels: Some(Vec::new()),
        };
        let filing = none.or(earlier);
        assert_eq!(
            (filing.collection.as_deref(), filing.labels),
            (Some("a"), Some(Vec::new()))
        );
    }
}
