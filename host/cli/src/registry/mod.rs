//! Publishes components to OCI registries, and pulls components by reference.
//!
//! Only the command line connects to registries: it pulls a component from the registry and uploads its bytes to a Weir server. The
//! server makes no requests to registries. If it did, it would connect to addresses that tenants choose, with the tenants'
//! credentials, and jobs would depend on the registry. The command line resolves a reference once, with the credentials of the user
//! who runs it. The server stores the digest of the bytes.
//!
//! The client makes the five requests of the OCI distribution specification 1.1 that it needs. `oci-client` would add ten
//! other crates. That crate reads bodies of any length into memory, sends passwords to any realm that a registry names, and follows
//! redirects to any address. This client limits the length of each response, checks realms and redirects, and accepts a component
//! only if it matches the digest in the manifest.

mod artifact;
mod auth_challenge;
mod client;
mod component_location;
mod credentials;
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use client::{PlainHttpArg, RegistryClient};
pub(crate) use component_location::ComponentLocation;
pub(crate) use reference::ArtifactReference;
