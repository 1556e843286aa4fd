//! OCR of page images with the PP-OCR models: text detection finds the lines, text recognition reads each of them.
//!
//! A page is a request that is split. Detecting its lines is one step. Then all workers that have no older request recognize
//! the lines in small groups. The cores thus share one page at a time: the first page is finished early, and the last page
//! leaves no core idle. Each run still uses one core, which is the most efficient way.
//!
//! PP-OCR has a classifier of the text direction between the two models. It is omitted here: pages come upright from the
//! rasterizer, and a vertical line is read in both directions if the first result is doubtful.

mod box_shrinking;
mod detection;
mod detection_bands;
mod line_crop;
mod network_names_and_errors;
mod ocr_image;
mod page;
mod recognition;
mod resize;
mod text_boxes;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::page::RawPageImage;
use weir_core::page_text::Line;
use weir_core::ports::{OcrEngine, SchedulingContext};

use crate::model_session::ModelRunnerFactory;
use crate::onnx_runtime::OnnxRuntime;
use crate::scheduler::{
    ActiveRequest, BatchRunningModel, ModelRunStopper, ModelStats, Scheduler, SchedulerConfig,
};

use detection::Detector;
use page::PageWithDetectedLines;
use recognition::Recognizer;

pub(crate) use network_names_and_errors::MODEL_NAME;

/// The fixed cost of a page, in millions of pixels: even an empty page takes this time.
const PAGE_BASE_COST: f64 = 0.1;

/// The cost to recognize one column of a line, in millions of page pixels that take as long to detect.
const COST_PER_COLUMN: f64 = 1e-4;

/// A step in the OCR of a page.
enum OcrStep {
    /// Detect the lines.
    DetectLines { image: RawPageImage, dpi: u32 },
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
    /// Creates the OCR engine. The first request starts the worker threads, and each opens its models.
    pub(crate) fn new(
        runtime: OnnxRuntime,
        detector: PathBuf,
        recognizer: PathBuf,
        scheduler_config: SchedulerConfig,
    ) -> Self {
        let detector = ModelRunnerFactory::new(runtime.clone(), detector);
        let recognizer = ModelRunnerFactory::new(runtime, recognizer);
        Self {
            workers: u32::try_from(scheduler_config.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(scheduler_config, move |stop| {
                Ok(Box::new(OcrModel {
                    detector: Detector::open_detection_model(&detector, stop)?,
                    recognizer: Recognizer::open_recognition_model(&recognizer, stop)?,
                    stop_signal: Arc::clone(stop),
                }))
            }),
        }
    }

    pub(crate) fn open_models_in_background(&self) -> Result<(), InferenceError> {
        self.scheduler.open_model_in_background()
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
        scheduling: &SchedulingContext,
        image: RawPageImage,
        dpi: u32,
    ) -> Result<Vec<Line>, InferenceError> {
        let cost = f64::from(image.width) * f64::from(image.height) / 1e6 + PAGE_BASE_COST;
        let results = self
            .scheduler
            .submit_and_await_results(scheduling, vec![(OcrStep::DetectLines { image, dpi }, cost)])
            .await?;
        Ok(results.into_iter().flatten().collect())
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }
}

struct OcrModel {
    detector: Detector,
    recognizer: Recognizer,
    stop_signal: Arc<ModelRunStopper>,
}

impl BatchRunningModel<OcrStep, Vec<Line>> for OcrModel {
    fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, OcrStep, Vec<Line>>>) {
        for request in batch {
            if request.is_awaited() && !self.stop_signal.is_stopped() {
                self.run_step(request);
            }
        }
    }
}

impl OcrModel {
    fn run_step(&mut self, request: ActiveRequest<'_, OcrStep, Vec<Line>>) {
        let should_continue = || request.is_awaited() && !self.stop_signal.is_stopped();
        match &request.item {
            OcrStep::DetectLines { image, dpi } => {
                match PageWithDetectedLines::detect_lines(&mut self.detector, image, *dpi, &should_continue) {
                    Ok(page) if page.line_boxes().is_empty() => request.send_result(Ok(Vec::new())),
                    Ok(page) => request.replace_with_queued_parts(self.recognition_steps(page)),
                    Err(error) => request.send_result(Err(error)),
                }
            }
            OcrStep::RecognizeLines {
                page,
                line_indexes: indexes,
            } => {
                match page.recognize_lines_maybe_finish_page(&mut self.recognizer, indexes, &should_continue)
                {
                    Ok(Some(lines)) => request.send_result(Ok(lines)),
                    // Other requests still recognize the remaining lines.
                    Ok(None) => {}
                    Err(error) => request.send_result(Err(error)),
                }
            }
        }
    }

    /// Returns the steps that recognize the lines of a page, with their costs.
    fn recognition_steps(&self, page: PageWithDetectedLines) -> Vec<(OcrStep, f64)> {
        let page = Arc::new(page);
        let groups = self.recognizer.group_lines_for_workers(page.line_boxes());
        groups
            .into_iter()
            .map(|group| {
                let page = Arc::clone(&page);
                let cost = f64::from(group.columns) * COST_PER_COLUMN;
                let indexes = group.line_indexes;
                (
                    OcrStep::RecognizeLines {
                        page,
                        line_indexes: indexes,
                    },
                    cost,
                )
            })
            .collect()
    }
}
