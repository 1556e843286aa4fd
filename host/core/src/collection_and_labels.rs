//! The collection and the labels that a job requests for its documents.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::decision::{DocumentRoute, Label};
use crate::id::is_valid_name;

/// Maximum number of labels of a document or a page. Each label is stored with every passage, so long lists multiply.
const MAX_LABELS: usize = 16;
/// Allowed bytes of a label's name.
const LABEL_NAME_BYTES: RangeInclusive<usize> = 1..=64;
/// Maximum bytes of a label's value.
pub const MAX_LABEL_VALUE_BYTES: usize = 1024;

/// A collection or a label is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectionOrLabelError {
    /// There are too many labels.
    #[error("{0} labels are more than the limit of {MAX_LABELS}")]
    TooManyLabels(usize),
    /// The name of a label is empty, too long or contains control characters.
    #[error("the name of a label is not {} to {} bytes of plain text", LABEL_NAME_BYTES.start(), LABEL_NAME_BYTES.end())]
    InvalidLabelName,
    /// The value of a label is too long.
    #[error("the value of label '{0}' is longer than {MAX_LABEL_VALUE_BYTES} bytes")]
    LabelValueTooLong(String),
    /// The name of the collection is not valid.
    #[error("the name of the collection is not 1 to 64 of the characters a-z, 0-9, '-' and '_'")]
    InvalidCollection,
}

/// Checks the number of labels and the length of their names and values.
pub fn validate_labels(labels: &[Label]) -> Result<(), CollectionOrLabelError> {
    if labels.len() > MAX_LABELS {
        return Err(CollectionOrLabelError::TooManyLabels(labels.len()));
    }
    for (name, value) in labels {
        if !LABEL_NAME_BYTES.contains(&name.len()) || name.contains(char::is_control) {
            return Err(CollectionOrLabelError::InvalidLabelName);
        }
        if value.len() > MAX_LABEL_VALUE_BYTES {
            return Err(CollectionOrLabelError::LabelValueTooLong(name.clone()));
        }
    }
    Ok(())
}

/// Collection and labels that a job requests for its documents, in addition to those of the routing component.
///
/// The job's collection overrides that of the routing component, as its lane does, because the job names it for
/// exactly these documents. A label of the routing component overrides the job's label of the same name, because a
/// client must not override the pipeline's classification. Neither can name a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectionAndLabelsRequest {
    /// Collection of the documents; `None` leaves it unchanged, or to the routing component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Labels of the documents, at most 16; `None` leaves them unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Label>>,
}

impl CollectionAndLabelsRequest {
    /// Checks names and limits. They are the same as for the decisions of the routing component.
    pub fn validate(&self) -> Result<(), CollectionOrLabelError> {
        if self
            .collection
            .as_deref()
            .is_some_and(|name| !is_valid_name(name))
        {
            return Err(CollectionOrLabelError::InvalidCollection);
        }
        validate_labels(self.labels.as_deref().unwrap_or_default())
    }

    /// Returns whether the job requests neither a collection nor labels.
    pub const fn is_empty(&self) -> bool {
        self.collection.is_none() && self.labels.is_none()
    }

    /// Fills the values that are not requested from `earlier`.
    pub fn fill_missing_from(self, earlier: Self) -> Self {
        Self {
            collection: self.collection.or(earlier.collection),
            labels: self.labels.or(earlier.labels),
        }
    }

    /// Changes the route of a document to the requested collection and labels.
    pub fn override_collection_and_add_labels(&self, route: &mut DocumentRoute) {
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
    use crate::PriorityLane;

    fn make_label(name: &str, value: &str) -> Label {
        (name.into(), value.into())
    }

    #[test]
    fn labels_and_collections_are_validated() {
        assert_eq!(validate_labels(&[make_label("a", "")]), Ok(()));
        for wrong in [
            vec![make_label("a", "b"); 17],
            vec![make_label("", "b")],
            vec![make_label("a\n", "b")],
            vec![make_label(&"a".repeat(65), "b")],
            vec![make_label("a", &"b".repeat(1025))],
        ] {
            assert!(validate_labels(&wrong).is_err(), "{wrong:?}");
        }
        for collection in ["", "Reports", "a/b", "tenant b"] {
            let request = CollectionAndLabelsRequest {
                collection: Some(collection.into()),
                labels: None,
            };
            assert_eq!(request.validate(), Err(CollectionOrLabelError::InvalidCollection));
        }
    }

    #[test]
    fn job_collection_overrides_routing_but_job_labels_do_not() {
        let mut route = DocumentRoute {
            collection: "default".into(),
            lane: PriorityLane::Bulk,
            models: crate::decision::ModelPreferences::default(),
            labels: vec![make_label("class", "secret")],
        };
        CollectionAndLabelsRequest::default().override_collection_and_add_labels(&mut route);
        assert_eq!((route.collection.as_str(), route.labels.len()), ("default", 1));
        let request = CollectionAndLabelsRequest {
            collection: Some("reports".into()),
            labels: Some(vec![make_label("class", "public"), make_label("team", "north")]),
        };
        request.override_collection_and_add_labels(&mut route);
        assert_eq!(route.collection, "reports");
        assert_eq!(
            route.labels,
            [make_label("class", "secret"), make_label("team", "north")]
        );
    }

    #[test]
    fn missing_collection_and_labels_come_from_earlier_request() {
        let earlier = CollectionAndLabelsRequest {
            collection: Some("a".into()),
            labels: Some(vec![make_label("team", "north")]),
        };
        assert_eq!(
            CollectionAndLabelsRequest::default().fill_missing_from(earlier.clone()),
            earlier
        );
        let none = CollectionAndLabelsRequest {
            collection: None,
            labels: Some(Vec::new()),
        };
        let merged = none.fill_missing_from(earlier);
        assert_eq!(
            (merged.collection.as_deref(), merged.labels),
            (Some("a"), Some(Vec::new()))
        );
    }
}
