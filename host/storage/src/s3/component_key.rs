//! Keys and names of components.

use weir_core::TenantId;
use weir_core::component::ComponentDigest;

use crate::component_store::component_file_name;

/// The first part of the keys, and the folder in the cache.
pub(super) const COMPONENTS: &str = "components";

pub(super) fn component_key(tenant: &TenantId, digest: &ComponentDigest) -> String {
    format!("{COMPONENTS}/{tenant}/{}", component_file_name(digest))
}

/// Returns the name in errors.
pub(super) fn component_name(digest: &ComponentDigest) -> String {
    format!("component {digest}")
}
