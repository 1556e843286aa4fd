//! Returns invalid updates; the setting `invalid-decision` selects the error.

use weir_sdk::progress::{Event, Progress, Update};

#[derive(Default)]
struct InvalidDecisions;

impl Progress for InvalidDecisions {
    fn observe(&mut self, _at_millis: u64, event: Event) -> Vec<Update> {
        let document = match event {
            Event::DocumentStarted(e) => e.document,
            Event::BatchRasterized(e) => e.document,
            Event::PageDone(e) => e.document,
            Event::PageFailed(e) => e.document,
            Event::DocumentDone(e) | Event::DocumentFailed(e) => e.document,
        };
        let valid = Update {
            document,
            percent: 1.0,
            message: "on its way".into(),
            seconds_left: None,
        };
        match weir_hostile::choose_invalid_decision(&[
            "nan",
            "negative",
            "beyond",
            "infinite",
            "long-message",
            "control",
            "many",
            "other-document",
        ]) {
            "nan" => vec![Update {
                percent: f32::NAN,
                ..valid
            }],
            "negative" => vec![Update {
                percent: -1.0,
                ..valid
            }],
            "beyond" => vec![Update {
                percent: 101.0,
                ..valid
            }],
            "infinite" => vec![Update {
                percent: f32::INFINITY,
                ..valid
            }],
            "long-message" => vec![Update {
                message: "a".repeat(501),
                ..valid
            }],
            // These characters clear the terminal that prints them.
            "control" => vec![Update {
                message: "\u{1b}[2J\r\n".into(),
                ..valid
            }],
            "many" => vec![valid; 17],
            _ => vec![Update {
                document: "0".repeat(64),
                ..valid
            }],
        }
    }
}

weir_sdk::export!(InvalidDecisions: Progress);
