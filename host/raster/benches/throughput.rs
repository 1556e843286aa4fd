//! Pages a second, drawn and encoded, with one worker and with two, against PDFium from Python and against poppler.
//!
//! ```text
//! cargo bench --profile dev --workspace --bench throughput -- [PAGES] [ROUNDS]
//! ```
//!
//! Every round measures each of them once, in turn, so that what else the machine does falls on all alike; the ratios are
//! medians over the rounds. Processor time a page tells more than the clock where others use the machine, too: twice the
//! workers are twice as fast if it stays the same. `pdftoppm` is taken from the path; a Python that has pypdfium2 is named by
//! `WEIR_BENCH_PYTHON`. What is missing is left out.

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

use common::{BOTH, Files, children, config};
use futures::stream::{self, StreamExt};
use weir_core::ports::{OpenDocument, Rasterizer};
use weir_raster::{RasterConfig, RasterPool};

/// Draws every page at 150 dpi and throws it away; no encoding, no disk.
const PYTHON: &str = "
import sys, time, pypdfium2
pdf = pypdfium2.PdfDocument(sys.argv[1])
begun, used = time.perf_counter(), time.process_time()
for page in pdf:
    page.render(scale=150 / 72)
print(time.perf_counter() - begun, time.process_time() - used)
";

/// Seconds by the clock and of processor time.
#[derive(Clone, Copy)]
struct Taken {
    clock: f64,
    processor: f64,
}

struct Contestant {
    name: &'static str,
    rounds: Vec<Taken>,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor time of a process, in seconds.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields = after.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn all_processor_time() -> f64 {
    processor_time(std::process::id()) + children().into_iter().map(processor_time).sum::<f64>()
}

async fn weir(document: &Arc<dyn OpenDocument>, workers: usize) -> Taken {
    let (begun, used) = (Instant::now(), all_processor_time());
    // Twice as many under way as there are workers, as a pipeline would have it.
    let pages = stream::iter(1..=document.info().pages);
    let drawn = pages
        .map(|page| document.draw(page, BOTH))
        .buffer_unordered(2 * workers);
    drawn
        .for_each(async |page| drop(page.expect("a page was not drawn")))
        .await;
    Taken {
        clock: begun.elapsed().as_secs_f64(),
        processor: all_processor_time() - used,
    }
}

fn python(interpreter: &str, pdf: &Path) -> Option<Taken> {
    let mut command = Command::new(interpreter);
    let output = command.args(["-c", PYTHON]).arg(pdf).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let (clock, processor) = said.trim().split_once(' ')?;
    Some(Taken {
        clock: clock.parse().ok()?,
        processor: processor.parse().ok()?,
    })
}

fn pdftoppm(pdf: &Path, folder: &Path) -> Option<Taken> {
    let (begun, used) = (Instant::now(), ended_children());
    let mut command = Command::new("pdftoppm");
    command
        // The quality that the workers encode at; its own would be 75.
        .args(["-jpeg", "-jpegopt", "quality=85", "-r", "150"])
        .arg(pdf)
        .arg(folder.join("page"));
    let status = command.stderr(Stdio::null()).status().ok()?;
    status.success().then(|| Taken {
        clock: begun.elapsed().as_secs_f64(),
        processor: ended_children() - used,
    })
}

/// Processor time of the children that have ended, in seconds.
fn ended_children() -> f64 {
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
        ("short pages of text", weir_samples::text_document(pages, 1)),
        ("dense pages of text", weir_samples::book(pages, 1)),
        ("scanned pages", weir_samples::scanned_book(pages)),
    ] {
        let files = Files::new();
        let source = files.source("document.pdf", &pdf);
        let mut pools = Vec::new();
        for workers in [1_u32, 2] {
            let pool = RasterPool::new(RasterConfig { workers, ..config() }).unwrap();
            let document = pool.open(&source).await.unwrap();
            // Processes are started and memory is touched before the clock runs.
            weir(&document, workers as usize).await;
            pools.push((pool, document, workers as usize));
        }
        let names = [
            "weir, 1 worker",
            "weir, 2 workers",
            "pypdfium2, drawing only",
            "pdftoppm -jpeg",
        ];
        let mut contestants = names.map(|name| Contestant {
            name,
            rounds: Vec::new(),
        });
        for _round in 0..rounds {
            for (at, (_, document, workers)) in pools.iter().enumerate() {
                contestants[at].rounds.push(weir(document, *workers).await);
            }
            contestants[2].rounds.extend(python(&interpreter, &source.path));
            contestants[3]
                .rounds
                .extend(pdftoppm(&source.path, &files.path(".")));
        }
        println!("\n{pages} {what}, 150 dpi, median of {rounds} rounds");
        println!(
            "{:<26} {:>9} {:>9} {:>12} {:>17}",
            "", "pages/s", "at best", "CPU ms/page", "2 workers are"
        );
        for contestant in &contestants {
            if contestant.rounds.len() < rounds {
                println!("{:<26} {:>9}", contestant.name, "missing");
                continue;
            }
            let pairs = contestants[1].rounds.iter().zip(&contestant.rounds);
            let ratio = median(pairs.map(|(two, other)| other.clock / two.clock));
            let speed = pages as f64 / median(contestant.rounds.iter().map(|r| r.clock));
            let best = pages as f64
                / contestant
                    .rounds
                    .iter()
                    .map(|r| r.clock)
                    .fold(f64::INFINITY, f64::min);
            let cost = median(contestant.rounds.iter().map(|r| r.processor)) * 1000.0 / pages as f64;
            let name = contestant.name;
            println!("{name:<26} {speed:>9.0} {best:>9.0} {cost:>12.2} {ratio:>15.2} ×");
        }
    }
}
