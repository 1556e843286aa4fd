//! OCR of page images with the PP-OCR models: text detection finds the lines, text recognition reads each of them.
//!
//! A page is a request that is split. Detecting its lines is one step. Then all workers that have no older request recognize the lines
//! in small groups. The cores thus share one page at a time: the first page is finished early, and the last page leaves no core idle.
//! Each run still uses one core, which is the most efficient way.
//!
//! PP-OCR has a classifier of the text direction between the two models. It is omitted here: pages come upright from the rasterizer,
//! and a vertical line is read in both directions if the first result is doubtful.

mod box_shrinking;
mod detection;
mod detection_bands;
mod line_crop;
mod networks;
mod ocr_image;
mod page;
mod recognition;
mod resize;
mod text_boxes;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::page::PageImage;
use weir_core::page_text::Line;
use weir_core::ports::{OcrEngine, SchedulingContext};

use crate::onnx_runtime::OnnxRuntime;
use crate::scheduler::{ActiveRequest, BatchModel, ModelStats, Scheduler, SchedulerConfig, StopSignal};
use crate::session::ModelFile;

use detection::Detector;
use page::PageWithDetectedLines;
use recognition::Recognizer;

pub(crate) use networks::MODEL_NAME;

/// The fixed cost of a page, in millions of pixels: even an empty page takes this time.
const PAGE_BASE_COST: f64 = 0.1;

/// The cost to recognize one column of a line, in millions of page pixels that take as long to detect.
const COST_PER_COLUMN: f64 = 1e-4;

/// A step in the OCR of a page.
enum OcrStep {
    /// Detect the lines.
    DetectLines { image: PageImage, dpi: u32 },
    /// Recognize the lines with these indexes.
    RecognizeLines {
        page: Arc<PageWithDetectedLines>,
        line_indexes: Vec<usize>,
    },
}

/// The OCR engine with the PP-OCR models.
pub(crate) struct PpOcrEngine {
    scheduler: Scheduler<OcrStep, Vec<Line>>,
    workers: u32,
}

impl PpOcrEngine {
    /// Opens no model yet.
    pub(crate) fn new(
        runtime: OnnxRuntime,
        detector: PathBuf,
        recognizer: PathBuf,
        sharing: SchedulerConfig,
    ) -> Self {
        let detector = ModelFile::new(runtime.clone(), detector);
        let recognizer = ModelFile::new(runtime, recognizer);
        Self {
            workers: u32::try_from(sharing.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(sharing, move |stop| {
                Ok(Box::new(OcrModel {
                    detector: Detector::open(&detector, stop)?,
                    recognizer: Recognizer::open(&recognizer, stop)?,
                    stop_signal: Arc::clone(stop),
                }))
            }),
        }
    }

    pub(crate) fn warm_up(&self) -> Result<(), InferenceError> {
        self.scheduler.warm_up()
    }

    pub(crate) fn stats(&self) -> ModelStats {
        self.scheduler.stats()
    }

    pub(crate) fn close(&self) {
        self.scheduler.close();
    }
}

#[async_trait]
impl OcrEngine for PpOcrEngine {
    async fn recognize_text(
        &self,
        account: &SchedulingContext,
        image: PageImage,
        dpi: u32,
    ) -> Result<Vec<Line>, InferenceError> {
        let cost = f64::from(image.width) * f64::from(image.height) / 1e6 + PAGE_BASE_COST;
        let answers = self
            .scheduler
            .submit(account, vec![(OcrStep::DetectLines { image, dpi }, cost)])
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }
}

struct OcrModel {
    detector: Detector,
    recognizer: Recognizer,
    stop_signal: Arc<StopSignal>,
}

impl BatchModel<OcrStep, Vec<Line>> for OcrModel {
    fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, OcrStep, Vec<Line>>>) {
        for job in batch {
            if job.is_awaited() && !self.stop_signal.is_stopped() {
                self.run_step(job);
            }
        }
    }
}

impl OcrModel {
    fn run_step(&mut self, job: ActiveRequest<'_, OcrStep, Vec<Line>>) {
        let go_on = || job.is_awaited() && !self.stop_signal.is_stopped();
        match &job.item {
            OcrStep::DetectLines { image, dpi } => {
                match PageWithDetectedLines::detect_lines(&mut self.detector, image, *dpi, &go_on) {
                    Ok(page) if page.boxes().is_empty() => job.complete(Ok(Vec::new())),
                    Ok(page) => job.split_into(self.recognition_steps(page)),
                    Err(error) => job.complete(Err(error)),
                }
            }
            OcrStep::RecognizeLines {
                page,
                line_indexes: places,
            } => match page.recognize_lines(&mut self.recognizer, places, &go_on) {
                Ok(Some(lines)) => job.complete(Ok(lines)),
                // Other requests still recognize the remaining lines.
                Ok(None) => {}
                Err(error) => job.complete(Err(error)),
            },
        }
    }

    /// Returns the steps that recognize the lines of a page, with their costs.
    fn recognition_steps(&self, page: PageWithDetectedLines) -> Vec<(OcrStep, f64)> {
        let page = Arc::new(page);
        let groups = self.recognizer.group_lines(page.boxes());
        groups
            .into_iter()
            .map(|group| {
                let page = Arc::clone(&page);
                let cost = f64::from(group.columns) * COST_PER_COLUMN;
                let places = group.line_indexes;
                (
                    OcrStep::RecognizeLines {
                        page,
                        line_indexes: places,
                    },
                    cost,
                )
            })
            .collect()
    }
}
