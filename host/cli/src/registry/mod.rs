//! Components in OCI registries: published where container images are, and named by reference.
//!
//! A component that was built elsewhere comes to a host in one way: this command line pulls it and pushes its bytes, like any
//! other's. The server never asks a registry for anything. It would have to reach what a tenant names, in the host's network, with
//! credentials somebody would have to entrust to it; and a job would depend on a registry being there. So a reference is resolved where
//! a person or a build has the right to read it, once, and what the server keeps is the digest of the bytes.
//!
//! The protocol (OCI distribution specification 1.1) is five requests, which are here, over the HTTP client that is here anyway. The
//! crate for it, oci-client, would bring thirteen others, takes bodies into memory whatever their length, sends passwords to any realm
//! that a registry names and follows its redirects to anywhere: what a registry says is not trusted here, only the digest is.

mod artifact;
mod challenge;
mod client;
mod credentials;
mod place;
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use client::{Access, Registry};
pub(crate) use place::Place;
pub(crate) use reference::Reference;
