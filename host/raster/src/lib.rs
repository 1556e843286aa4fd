//! PDFium in sandboxed worker processes, behind the ports `Rasterizer` and `OpenedPdf`.
//!
//! PDFium is a million lines of C++ that parse untrusted input, and it allows only one caller at a time. Separate processes
//! solve both problems. A worker is this program again, started with a hidden argument ([`worker_main`]). It loads PDFium,
//! gives up every privilege that it does not need (files, network, new processes, unbounded memory) and then reads requests
//! from one socket. The host never loads PDFium. Drawing scales with the number of processes; threads would wait for one lock.
//!
//! ```text
//!  rasterize_page(), …  ──► dispatcher ──► supervisor ──socket──► worker: PDFium, JPEG
//!                           queues         one for                │
//!                           image budget   each worker            ▼
//!             PageImage ◄── the same memory ◄────────────────── segment
//! ```
//!
//! Pixels are drawn into memory that both sides map (`shared_memory`); nothing copies them. The JPEG encoder runs in the worker
//! too, because encoding costs more than drawing. The encoded files are small and are sent over the socket. A page without
//! colors is drawn and encoded in gray, which takes two thirds of the time.
//!
//! The sandbox protects the host and the machine from a PDF. It does not isolate documents that are open in the same worker
//! from each other. A PDF that has taken control of its worker can read the documents of this worker until the worker is replaced,
//! after some thousand pages. It cannot read documents of other workers, because workers do not share page memory.
//!
//! A PDF may name fonts without embedding them. PDFium replaces these with its 14 built-in fonts, because a worker cannot read
//! the fonts of the machine. A page therefore looks the same on every machine.

mod config;
mod dispatcher;
mod document;
mod framing;
mod image_budget;
mod image_reservation;
mod page_image_resolution;
mod pool;
mod pool_state;
mod protocol;
mod response_validation;
mod sandbox_requirements;
mod segment_pool;
mod shared_memory;
mod task;
mod worker;
mod worker_process;
mod worker_spawner;
mod worker_supervisor;

pub use config::RasterConfig;
pub use pool::{RasterCounters, RasterPool, SandboxReport, probe_sandbox};
pub use protocol::{EnforcementLevel, SandboxProbe, SandboxStatus};
pub use worker::worker_main;
pub use worker_supervisor::LOST_WORKERS_LOG_TARGET;
