//! Default values of fields that a test case leaves out.

use weir_core::DocumentId;

/// Default document id: all zeros.
pub(super) fn default_document_id() -> DocumentId {
    DocumentId::from_digest([0; 32])
}

pub(super) const fn default_true() -> bool {
    true
}

pub(super) const fn default_one() -> u32 {
    1
}

/// Width of A4 in points.
pub(super) const fn default_page_width() -> f32 {
    595.0
}

pub(super) const fn default_page_height() -> f32 {
    842.0
}

/// Maximum tokens of the default embedding model.
pub(super) const fn default_max_tokens() -> u32 {
    256
}
