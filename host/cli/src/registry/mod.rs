//! Publishes components to OCI registries for container images, and pulls them by reference.
//!
//! Only the command line talks to registries: it pulls a component and pushes the bytes to a server. The server makes no requests
//! to registries. Otherwise it would have to connect to addresses that tenants choose, with the tenants' credentials, and jobs
//! would depend on the registry. The command line resolves a reference once, with the rights of its user, and the server stores
//! the digest of the bytes.
//!
//! The client makes the five requests of the OCI distribution specification 1.1 that it needs. The crate oci-client would add 13
//! dependencies. It reads bodies of any length into memory, sends passwords to any realm that a registry names, and follows
//! redirects to any address. This client trusts only digests, and no other data of a registry.

mod artifact;
mod auth_challenge;
mod client;
mod component_location;
mod credentials;
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use client::{RegistryAccessArgs, RegistryClient};
pub(crate) use component_location::ComponentLocation;
pub(crate) use reference::ArtifactReference;
