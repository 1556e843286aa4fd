//! The engine against fakes, in virtual time.

#![allow(unreachable_pub)] // the fakes are shared with the benchmark

mod fakes;
mod flow;
