//! Measures pages per second, drawn and encoded, with one and two workers, against PDFium from Python and against poppler.
//!
//! ```text
//! cargo bench --profile dev --workspace --bench throughput -- [PAGES] [ROUNDS]
//! ```
//!
//! Each round measures every program once, in turn, so that other load on the machine affects all of them alike. The ratios are
//! medians over the rounds. On a shared machine, CPU time per page tells more than wall time: if it stays the same with twice the
//! workers, they are twice as fast. `pdftoppm` is found in `PATH`; `WEIR_BENCH_PYTHON` names a Python that has pypdfium2. A missing
//! program is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

#[path = "../tests/common/mod.rs"]
mod common;

use common::{PIXELS_AND_JPEG, TempFiles, child_pids, test_config};
use futures::stream::{self, StreamExt};
use weir_core::ports::{OpenedPdf, Rasterizer};
use weir_raster::{RasterConfig, RasterPool};

/// Draws every page at 150 dpi and discards it; no encoding, no disk.
const PYPDFIUM2_SCRIPT: &str = "
import sys, time, pypdfium2
pdf = pypdfium2.PdfDocument(sys.argv[1])
begun, used = time.perf_counter(), time.process_time()
for page in pdf:
    page.render(scale=150 / 72)
print(time.perf_counter() - begun, time.process_time() - used)
";

/// Wall time and CPU time, in seconds.
#[derive(Clone, Copy)]
struct Timing {
    wall_seconds: f64,
    cpu_seconds: f64,
}

struct Measurement {
    name: &'static str,
    rounds: Vec<Timing>,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the CPU time of a process, in seconds.
fn process_cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields = after.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn host_and_worker_cpu_seconds() -> f64 {
    process_cpu_seconds(std::process::id()) + child_pids().into_iter().map(process_cpu_seconds).sum::<f64>()
}

async fn time_weir(document: &Arc<dyn OpenedPdf>, workers: usize) -> Timing {
    let (begun, used) = (Instant::now(), host_and_worker_cpu_seconds());
    // Twice as many pages are requested as there are workers, as in a pipeline.
    let pages = stream::iter(1..=document.document_info().pages);
    let drawn = pages
        .map(|page| document.reserve_and_rasterize_page(page, PIXELS_AND_JPEG))
        .buffer_unordered(2 * workers);
    drawn
        .for_each(async |page| drop(page.expect("a page was not drawn")))
        .await;
    Timing {
        wall_seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: host_and_worker_cpu_seconds() - used,
    }
}

fn time_pypdfium2(interpreter: &str, pdf: &Path) -> Option<Timing> {
    let mut command = Command::new(interpreter);
    let output = command.args(["-c", PYPDFIUM2_SCRIPT]).arg(pdf).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let (clock, processor) = said.trim().split_once(' ')?;
    Some(Timing {
        wall_seconds: clock.parse().ok()?,
        cpu_seconds: processor.parse().ok()?,
    })
}

fn time_pdftoppm(pdf: &Path, folder: &Path) -> Option<Timing> {
    let (begun, used) = (Instant::now(), ended_children_cpu_seconds());
    let mut command = Command::new("pdftoppm");
    command
        // The JPEG quality of the workers; the default of pdftoppm is 75.
        .args(["-jpeg", "-jpegopt", "quality=85", "-r", "150"])
        .arg(pdf)
        .arg(folder.join("page"));
    let status = command.stderr(Stdio::null()).status().ok()?;
    status.success().then(|| Timing {
        wall_seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: ended_children_cpu_seconds() - used,
    })
}

/// Returns the CPU time of the child processes that have ended, in seconds.
fn ended_children_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(13)
        .take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<usize>().ok());
    let (pages, rounds) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(5));
    let interpreter = std::env::var("WEIR_BENCH_PYTHON").unwrap_or_default();
    for (what, pdf) in [
        (
            "short pages of text",
            weir_samples::generate_text_document(pages, 1),
        ),
        ("dense pages of text", weir_samples::generate_book(pages, 1)),
        ("scanned pages", weir_samples::generate_scanned_book(pages)),
    ] {
        let files = TempFiles::new();
        let source = files.write_source("document.pdf", &pdf);
        let mut pools = Vec::new();
        for workers in [1_u32, 2] {
            let pool = RasterPool::new(RasterConfig {
                workers,
                ..test_config()
            })
            .unwrap();
            let document = pool.open_document(&source).await.unwrap();
            // This starts the processes and touches the memory before the measurement.
            time_weir(&document, workers as usize).await;
            pools.push((pool, document, workers as usize));
        }
        let names = [
            "weir, 1 worker",
            "weir, 2 workers",
            "pypdfium2, drawing only",
            "pdftoppm -jpeg",
        ];
        let mut contestants = names.map(|name| Measurement {
            name,
            rounds: Vec::new(),
        });
        for _round in 0..rounds {
            for (at, (_, document, workers)) in pools.iter().enumerate() {
                contestants[at].rounds.push(time_weir(document, *workers).await);
            }
            contestants[2]
                .rounds
                .extend(time_pypdfium2(&interpreter, &source.path));
            contestants[3]
                .rounds
                .extend(time_pdftoppm(&source.path, &files.path(".")));
        }
        println!("\n{pages} {what}, 150 dpi, median of {rounds} rounds");
        println!(
            "{:<26} {:>9} {:>9} {:>12} {:>17}",
            "", "pages/s", "best", "CPU ms/page", "2 workers are"
        );
        for contestant in &contestants {
            if contestant.rounds.len() < rounds {
                println!("{:<26} {:>9}", contestant.name, "missing");
                continue;
            }
            let pairs = contestants[1].rounds.iter().zip(&contestant.rounds);
            let ratio = median(pairs.map(|(two, other)| other.wall_seconds / two.wall_seconds));
            let speed = pages as f64 / median(contestant.rounds.iter().map(|r| r.wall_seconds));
            let best = pages as f64
                / contestant
                    .rounds
                    .iter()
                    .map(|r| r.wall_seconds)
                    .fold(f64::INFINITY, f64::min);
            let cost = median(contestant.rounds.iter().map(|r| r.cpu_seconds)) * 1000.0 / pages as f64;
            let name = contestant.name;
            println!("{name:<26} {speed:>9.0} {best:>9.0} {cost:>12.2} {ratio:>15.2} ×");
        }
    }
}
