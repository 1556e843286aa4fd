//! Answers with updates that cannot be; the setting `nonsense` says what is wrong with them.

use weir_sdk::progress::{Event, Progress, Update};

#[derive(Default)]
struct Nonsense;

impl Progress for Nonsense {
    fn observe(&mut self, _at_millis: u64, event: Event) -> Vec<Update> {
        let document = match event {
            Event::DocumentStarted(e) => e.document,
            Event::BatchRasterized(e) => e.document,
            Event::PageDone(e) => e.document,
            Event::PageFailed(e) => e.document,
            Event::DocumentDone(e) | Event::DocumentFailed(e) => e.document,
        };
        let sensible = Update {
            document,
            percent: 1.0,
            message: "on its way".into(),
            seconds_left: None,
        };
        match weir_hostile::nonsense(&[
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
                ..sensible
            }],
            "negative" => vec![Update {
                percent: -1.0,
                ..sensible
            }],
            "beyond" => vec![Update {
                percent: 101.0,
                ..sensible
            }],
            "infinite" => vec![Update {
                percent: f32::INFINITY,
                ..sensible
            }],
            "long-message" => vec![Update {
                message: "a".repeat(501),
                ..sensible
            }],
            // Would clear the terminal of whoever prints it.
            "control" => vec![Update {
                message: "\u{1b}[2J\r\n".into(),
                ..sensible
            }],
            "many" => vec![sensible; 17],
            _ => vec![Update {
                document: "0".repeat(64),
                ..sensible
            }],
        }
    }
}

weir_sdk::export!(Nonsense: Progress);
