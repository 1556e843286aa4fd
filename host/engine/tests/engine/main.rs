//! The engine against fakes, in virtual time.

#![allow(unreachable_pub)] // the fakes are shared with the benchmark

mod cancel;
mod crash;
mod failures;
mod fakes;
mod floor;
mod flow;
mod ledger;
mod makespan;
