//! Reading page images with the PP-OCR models: a detector finds the lines, a recognizer reads each.
//!
//! The text direction classifier that PP-OCR puts between the two is left out: pages come upright from the rasterizer,
//! and lines that run up or down are read both ways where one way is doubtful.

mod bands;
mod boxes;
mod crop;
mod det;
mod fit;
mod page;
mod picture;
mod rec;
mod resize;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::page::PageImage;
use weir_core::ports::{Account, Reader};
use weir_core::text::Line;

use crate::runtime::Runtime;
use crate::scheduler::{Job, Model, ModelStats, Scheduler, Sharing, Stop};

use det::Detector;
use page::Page;
use rec::Recognizer;

/// The model's name in errors.
pub(crate) const NAME: &str = "ocr";

/// Pixels, in millions, that cost as much as anything else does on the emptiest page.
const LEAST_COST: f64 = 0.1;

/// A page to be read.
struct Request {
    image: PageImage,
    dpi: u32,
}

/// The reader.
pub(crate) struct Ocr {
    scheduler: Scheduler<Request, Vec<Line>>,
    workers: u32,
}

impl Ocr {
    /// Opens nothing yet.
    pub(crate) fn new(runtime: Runtime, detector: PathBuf, recognizer: PathBuf, sharing: Sharing) -> Self {
        Self {
            workers: u32::try_from(sharing.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(sharing, move |stop| {
                Ok(Box::new(Worker {
                    page: Page {
                        detector: Detector::open(&runtime, &detector, stop)?,
                        recognizer: Recognizer::open(&runtime, &recognizer, stop)?,
                    },
                    stop: Arc::clone(stop),
                }))
            }),
        }
    }

    pub(crate) fn stats(&self) -> ModelStats {
        self.scheduler.stats()
    }

    pub(crate) fn close(&self) {
        self.scheduler.close();
    }
}

#[async_trait]
impl Reader for Ocr {
    async fn read(&self, account: &Account, image: PageImage, dpi: u32) -> Result<Vec<Line>, InferenceError> {
        let cost = f64::from(image.width) * f64::from(image.height) / 1e6 + LEAST_COST;
        let answers = self
            .scheduler
            .submit(account, vec![(Request { image, dpi }, cost)])
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    fn workers(&self) -> u32 {
        self.workers
    }
}

struct Worker {
    page: Page,
    stop: Arc<Stop>,
}

impl Model<Request, Vec<Line>> for Worker {
    fn run(&mut self, batch: Vec<Job<Request, Vec<Line>>>) {
        for job in batch {
            let go_on = || job.is_wanted() && !self.stop.is_told();
            if !go_on() {
                continue;
            }
            let answer = self.page.read(&job.item.image, job.item.dpi, &go_on);
            if let Ok((lines, times)) = &answer {
                tracing::debug!(
                    lines = lines.len(),
                    detect_millis = times.detect.as_millis(),
                    recognize_millis = times.recognize.as_millis(),
                    "page read"
                );
            }
            job.answer(answer.map(|(lines, _)| lines));
        }
    }
}

/// The error of a page nobody waits for any more.
fn abandoned() -> InferenceError {
    InferenceError::Failed {
        model: NAME.into(),
        reason: "it was stopped before it answered".into(),
    }
}
