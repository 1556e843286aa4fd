//! What holds where a case does not say.

use weir_core::DocumentId;

/// The document that a case speaks of if it names none.
pub(super) fn some_document() -> DocumentId {
    DocumentId::from_digest([0; 32])
}

pub(super) const fn yes() -> bool {
    true
}

pub(super) const fn one() -> u32 {
    1
}

/// A4 in points.
pub(super) const fn width() -> f32 {
    595.0
}

pub(super) const fn height() -> f32 {
    842.0
}

/// What the default embedding model takes.
pub(super) const fn model_tokens() -> u32 {
    256
}
