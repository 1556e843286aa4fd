//! Labels of documents and pages.

/// Name and value.
pub type Label = (String, String);

/// The form of labels in JSON: objects with `name` and `value`. A recording encodes both forms in the same way.
pub(super) mod as_objects {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Label;

    #[derive(Serialize)]
    struct LabelRef<'a> {
        name: &'a str,
        value: &'a str,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OwnedLabel {
        name: String,
        value: String,
    }

    pub(crate) fn serialize<S: Serializer>(labels: &[Label], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(labels.iter().map(|(name, value)| LabelRef { name, value }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
        let labels = Vec::<OwnedLabel>::deserialize(deserializer)?;
        Ok(labels
            .into_iter()
            .map(|label| (label.name, label.value))
            .collect())
    }
}
