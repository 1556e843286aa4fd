//! PDFium in sandboxed worker processes, behind the ports `Rasterizer` and `OpenDocument`.
//!
//! PDFium is a million lines of C++ that parse whatever a stranger sends, and it allows one caller at a time. Both are
//! answered by processes: a worker is this program again, run with a hidden argument ([`worker_main`]), that loads PDFium,
//! gives up every right it does not need (no files, no network, no processes, bounded memory) and then reads orders
//! from one socket. The host never loads PDFium. Drawing scales with processes where threads would wait for one lock.
//!
//! ```text
//!  draw(), text(), facts() ──► desk ──► keeper ──socket──► worker: PDFium, JPEG
//!                              queue    one for            │
//!                              budget   each worker        ▼
//!        PageImage ◄── the same memory ◄──────────────── segment
//! ```
//!
//! Pixels are drawn into memory that both sides map (`shared`); nothing copies them. The encoder runs in the worker as
//! well, because it costs more than drawing; its files are small and come back over the socket. A page that has no colours is drawn
//! and encoded in gray, in two thirds of the time.
//!
//! What the sandbox is and is not: it protects the host and the machine from a PDF. It does not separate documents that
//! are open in the same worker from each other; workers are replaced after some thousand pages, and share no page memory
//! among themselves, so that is how far a PDF that has taken over its worker can see.
//!
//! Fonts that a PDF names but does not bring are replaced by the 14 that PDFium has inside: a worker cannot read the
//! machine's fonts, and so a page looks the same on every machine.

mod answers;
mod arena;
mod budget;
mod desk;
mod document;
mod keeper;
mod nursery;
mod pool;
mod process;
mod protocol;
mod required;
mod rotation;
mod shared;
mod sizing;
mod wire;
mod work;
mod worker;

pub use keeper::LOST_WORKERS;
pub use pool::{RasterConfig, RasterCounters, RasterPool, SandboxReport, sandbox_report};
pub use protocol::{Lock, Probe, Sandbox};
pub use worker::worker_main;
