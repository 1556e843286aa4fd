//! Reading page images with the PP-OCR models: a detector finds the lines, a recognizer reads each.
//!
//! A page is a request that splits: to find its lines is one step, and then they are read in small groups by all workers
//! that have nothing older to do. So the cores share the page at hand, the first page is there early and the last one
//! leaves no core idle, although each run uses one core, which is what it does best.
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

/// What a column of a line costs to read, in the millions of page pixels that cost as much to look over.
const COLUMN_COST: f64 = 1e-4;

/// A step of a page's reading.
enum Step {
    /// Find the lines.
    Find { image: PageImage, dpi: u32 },
    /// Read those at these places.
    Read { page: Arc<Page>, places: Vec<usize> },
}

/// The reader.
pub(crate) struct Ocr {
    scheduler: Scheduler<Step, Vec<Line>>,
    workers: u32,
}

impl Ocr {
    /// Opens nothing yet.
    pub(crate) fn new(runtime: Runtime, detector: PathBuf, recognizer: PathBuf, sharing: Sharing) -> Self {
        Self {
            workers: u32::try_from(sharing.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(sharing, move |stop| {
                Ok(Box::new(Worker {
                    detector: Detector::open(&runtime, &detector, stop)?,
                    recognizer: Recognizer::open(&runtime, &recognizer, stop)?,
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
            .submit(account, vec![(Step::Find { image, dpi }, cost)])
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    fn workers(&self) -> u32 {
        self.workers
    }
}

struct Worker {
    detector: Detector,
    recognizer: Recognizer,
    stop: Arc<Stop>,
}

impl Model<Step, Vec<Line>> for Worker {
    fn run(&mut self, batch: Vec<Job<'_, Step, Vec<Line>>>) {
        for job in batch {
            if job.is_wanted() && !self.stop.is_told() {
                self.step(job);
            }
        }
    }
}

impl Worker {
    fn step(&mut self, job: Job<'_, Step, Vec<Line>>) {
        let go_on = || job.is_wanted() && !self.stop.is_told();
        match &job.item {
            Step::Find { image, dpi } => match Page::find(&mut self.detector, image, *dpi, &go_on) {
                Ok(page) if page.boxes().is_empty() => job.answer(Ok(Vec::new())),
                Ok(page) => job.split(self.steps(page)),
                Err(error) => job.answer(Err(error)),
            },
            Step::Read { page, places } => match page.read(&mut self.recognizer, places, &go_on) {
                Ok(Some(lines)) => job.answer(Ok(lines)),
                // Others have the rest.
                Ok(None) => {}
                Err(error) => job.answer(Err(error)),
            },
        }
    }

    /// The steps that read a page's lines, with what they cost.
    fn steps(&self, page: Page) -> Vec<(Step, f64)> {
        let page = Arc::new(page);
        let groups = self.recognizer.groups(page.boxes());
        groups
            .into_iter()
            .map(|group| {
                let page = Arc::clone(&page);
                let cost = f64::from(group.columns) * COLUMN_COST;
                let places = group.places;
                (Step::Read { page, places }, cost)
            })
            .collect()
    }
}

/// The error of a page nobody waits for any more.
fn abandoned() -> InferenceError {
    InferenceError::Failed {
        model: NAME.into(),
        reason: "it was stopped before it answered".into(),
    }
}
