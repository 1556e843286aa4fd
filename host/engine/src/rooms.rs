//! The waiting rooms of one document, and the seats of the host they lead to.

use std::sync::{Arc, OnceLock};

use weir_core::Stage;
use weir_core::decision::{BatchPlan, QueueState, StageTime};
use weir_core::ports::Account;

use crate::gate::Pass;
use crate::ocr_images::{DocumentImages, OcrImages};
use crate::spent::Spent;
use crate::stage::{Room, Seats};

/// The seats of every stage, for the whole host.
pub(crate) struct HostSeats {
    pub(crate) rasterize: Seats,
    pub(crate) ocr_images: Arc<OcrImages>,
    pub(crate) store: Seats,
    /// Reading by OCR.
    pub(crate) ocr: Seats,
    /// Reading the text layer, which is work for the PDF workers and not for the models.
    pub(crate) text_layer: Seats,
    /// Reading by vision models, which is waiting for them. An image is held in each.
    pub(crate) vision: Seats,
    pub(crate) embed: Seats,
    pub(crate) upsert: Seats,
}

impl HostSeats {
    /// See [`Seats::admit`].
    pub(crate) fn admit(&self) {
        let all = [
            &self.rasterize,
            &self.store,
            &self.ocr,
            &self.text_layer,
            &self.vision,
            &self.embed,
            &self.upsert,
        ];
        all.into_iter().for_each(Seats::admit);
    }

    /// A stage's usual seats.
    pub(crate) const fn of(&self, stage: Stage) -> &Seats {
        match stage {
            Stage::Rasterize => &self.rasterize,
            Stage::Store => &self.store,
            Stage::Read => &self.ocr,
            Stage::Embed => &self.embed,
            Stage::Upsert => &self.upsert,
        }
    }
}

/// A document's rooms.
pub(crate) struct Rooms {
    pub(crate) rasterize: Room,
    pub(crate) store: Room,
    /// Lines on their way to the store. A room of its own, since it is booked from another stage than the images' room;
    /// the seats are the same.
    pub(crate) lines: Room,
    pub(crate) read: Room,
    pub(crate) embed: Room,
    pub(crate) upsert: Room,
    ocr_images: OnceLock<DocumentImages>,
}

impl Rooms {
    /// Rooms with one place each, until the first batch is planned. What is spent counts for the job and for the document.
    pub(crate) fn new(seats: &HostSeats, account: &Account, spent: [&Arc<Spent>; 2]) -> Self {
        let room = |stage| Room::new(stage, seats.of(stage), account, spent);
        Self {
            rasterize: room(Stage::Rasterize),
            store: room(Stage::Store),
            lines: room(Stage::Store),
            read: room(Stage::Read),
            embed: room(Stage::Embed),
            upsert: room(Stage::Upsert),
            ocr_images: OnceLock::new(),
        }
    }

    /// Waits until another page image of the document may be in memory for OCR.
    pub(crate) async fn ocr_image(&self, seats: &HostSeats) -> Pass {
        let images = self
            .ocr_images
            .get_or_init(|| seats.ocr_images.document(self.rasterize.party()));
        images.permit().await
    }

    fn all(&self) -> [&Room; 5] {
        [
            &self.rasterize,
            &self.store,
            &self.read,
            &self.embed,
            &self.upsert,
        ]
    }

    /// As much room before each stage as the plan asks for.
    pub(crate) fn follow(&self, plan: &BatchPlan) {
        let pages = plan.queue_capacity.max(1).saturating_mul(plan.pages.max(1));
        for room in self.all().into_iter().chain([&self.lines]) {
            room.set_capacity(pages);
        }
    }

    /// Queues, in the order of the stages.
    pub(crate) fn queues(&self) -> Vec<QueueState> {
        self.all().map(Room::queue).into()
    }

    /// Stage times, in the order of the stages.
    pub(crate) fn times(&self) -> Vec<StageTime> {
        self.all().map(Room::time).into()
    }
}
