//! Tests of the real server with several tenants over HTTP, with correct and with abusive clients.

mod canary;
mod command_targets;
mod component_logs;
mod connections;
mod document_removal;
mod erasure;
mod events;
mod full_disk;
mod host_paths;
mod hostile_components;
mod jobs;
mod kill_and_restart;
mod labels;
mod pipelines;
mod providers;
mod quotas;
mod registry;
mod request_bodies;
mod request_headers;
mod resource_leaks;
mod shadow;
mod slow_event_readers;
mod tenant_isolation;
mod traces;
