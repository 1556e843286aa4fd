//! Which passages a search or a removal selects, independent of the index. Every filter has a tenant.

use std::fmt;

use serde_json::Value;
use weir_core::decision::Label;
use weir_core::search::SearchQuery;
use weir_core::{DocumentId, PageNumber, TenantId};

/// A key in the payload of a passage, by which filters select it.
pub(super) enum FilterKey<'a> {
    Tenant(&'a TenantId),
    Collection(&'a str),
    Document(&'a DocumentId),
    Label(&'a Label),
}

impl fmt::Display for FilterKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Collection(collection) => write!(f, "collection {collection}"),
            Self::Document(document) => write!(f, "document {document}"),
            // JSON distinguishes ("a=b", "c") from ("a", "b=c").
            Self::Label((name, value)) => {
                write!(f, "label {}", Value::from(vec![name.as_str(), value.as_str()]))
            }
        }
    }
}

/// Parses a key as a label; `None` if it is not a label's key.
pub(super) fn parse_label_key(key: &str) -> Option<Label> {
    serde_json::from_str(key.strip_prefix("label ")?).ok()
}

/// Parses a key as a tenant's; `None` if it is another key.
pub(super) fn parse_tenant_key(key: &str) -> Option<TenantId> {
    key.strip_prefix("tenant ")?.parse().ok()
}

/// Selects the passages of a tenant that match all conditions.
pub(super) struct PassageFilter {
    pub(super) tenant: TenantId,
    /// Keys that a passage must have.
    pub(super) keys: Vec<String>,
    /// Keys of which a passage must have one, unless empty.
    pub(super) any_key: Vec<String>,
    /// Pages of which a passage must be on one; `None` selects all pages.
    pub(super) pages: Option<Vec<PageNumber>>,
}

impl PassageFilter {
    /// Selects all passages of a tenant.
    pub(super) fn of_tenant(tenant: &TenantId) -> Self {
        Self {
            tenant: tenant.clone(),
            keys: Vec::new(),
            any_key: Vec::new(),
            pages: None,
        }
    }

    /// Selects the passages of a document, or of some of its pages.
    pub(super) fn of_document(
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Self {
        Self {
            keys: vec![FilterKey::Document(document).to_string()],
            pages: pages.map(<[_]>::to_vec),
            ..Self::of_tenant(tenant)
        }
    }

    /// Returns whether a passage with these keys is selected, if its page is.
    pub(super) fn matches_keys(&self, keys: &[String]) -> bool {
        self.keys.iter().all(|key| keys.contains(key))
            && (self.any_key.is_empty() || self.any_key.iter().any(|key| keys.contains(key)))
    }

    /// Selects the passages among which a query searches.
    pub(super) fn of_query(tenant: &TenantId, query: &SearchQuery) -> Self {
        let collection = query.collection.as_deref().map(FilterKey::Collection);
        let labels = query.labels.iter().map(FilterKey::Label);
        let documents = query.documents.iter().map(FilterKey::Document);
        Self {
            keys: collection
                .into_iter()
                .chain(labels)
                .map(|key| key.to_string())
                .collect(),
            any_key: documents.map(|key| key.to_string()).collect(),
            ..Self::of_tenant(tenant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_if_all_are_there_and_one_of_any() {
        let keys = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut filter = PassageFilter::of_tenant(&TenantId::default_tenant());
        assert!(filter.matches_keys(&[]));
        filter.keys = keys(&["a", "b"]);
        assert!(filter.matches_keys(&keys(&["b", "c", "a"])));
        assert!(!filter.matches_keys(&keys(&["a", "c"])));
        filter.any_key = keys(&["x", "y"]);
        assert!(filter.matches_keys(&keys(&["a", "b", "y"])));
        assert!(!filter.matches_keys(&keys(&["a", "b"])));
    }
}
