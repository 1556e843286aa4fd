//! Default values of fields that the JSON of an input leaves out.

use crate::id::DocumentId;

/// Default document id: all zeros.
pub(super) fn default_document() -> DocumentId {
    DocumentId::from_digest([0; 32])
}

pub(super) const fn default_true() -> bool {
    true
}

pub(super) const fn default_one() -> u32 {
    1
}

/// Level of a section without a parent.
pub(super) const fn default_heading_level() -> u8 {
    1
}

/// Maximum tokens of the default embedding model.
pub(super) const fn default_embedding_max_tokens() -> u32 {
    256
}

pub(super) const fn default_free_image_bytes() -> u64 {
    256 << 20
}

pub(super) const fn default_device_memory() -> u64 {
    8 << 30
}

pub(super) const fn default_cores() -> u32 {
    4
}
