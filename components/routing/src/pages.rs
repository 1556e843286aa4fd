//! How a page is read.
//!
//! Recognizing text costs two seconds of a core where the text layer costs a millisecond, so it is done where the text layer
//! cannot be all there is: where much of the page lies under images and little text comes with it. How much text is enough
//! grows with the images. A scan with a stamp of sixty characters is still a scan, an article with a figure and its caption
//! is not. What is drawn with paths alone, without text and without images, looks blank from here; `ocr = always` reads it.
//!
//! A vision model costs seconds, and money or a GPU, so it is never asked unless the tenant says so. Then it takes the place of
//! recognition on the same pages (`vision = auto`), or reads all of them.

use weir_sdk::PageFacts;
use weir_sdk::routing::{PageRoute, Reading};

use crate::rules::{Rules, When};

/// The route of a page. A page that cannot be opened gets one too: the host finds out by trying, and asks what follows.
pub(crate) fn route(rules: &Rules, facts: &PageFacts) -> PageRoute {
    let reading = reading(rules, facts);
    PageRoute {
        reading,
        embed: rules.embed && reading != Reading::Nothing,
        store: rules.store,
        labels: Vec::new(),
    }
}

fn reading(rules: &Rules, facts: &PageFacts) -> Reading {
    let wanted = |when| match when {
        When::Always => true,
        When::Auto => says_too_little(rules, facts),
        When::Never => false,
    };
    match facts {
        _ if !facts.readable => Reading::TextLayer,
        _ if wanted(rules.vision) => Reading::VisionModel,
        _ if wanted(rules.ocr) => Reading::Ocr,
        _ if facts.text_chars == 0 => Reading::Nothing,
        _ => Reading::TextLayer,
    }
}

fn says_too_little(rules: &Rules, facts: &PageFacts) -> bool {
    facts.image_coverage >= rules.ocr_min_coverage
        && (facts.text_chars as f32) < rules.ocr_min_chars as f32 * facts.image_coverage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text_chars: u32, image_coverage: f32) -> PageFacts {
        PageFacts {
            number: 1,
            width: 595.0,
            height: 842.0,
            text_chars,
            image_coverage,
            readable: true,
        }
    }

    fn read(ocr: When, text_chars: u32, image_coverage: f32) -> Reading {
        let rules = Rules {
            ocr,
            ..Rules::default()
        };
        route(&rules, &facts(text_chars, image_coverage)).reading
    }

    #[test]
    fn a_page_is_recognized_where_its_text_is_too_little_for_its_images() {
        assert_eq!(read(When::Auto, 3000, 0.0), Reading::TextLayer);
        assert_eq!(read(When::Auto, 0, 1.0), Reading::Ocr); // a scan
        assert_eq!(read(When::Auto, 60, 1.0), Reading::Ocr); // a scan with a stamp
        assert_eq!(read(When::Auto, 2500, 1.0), Reading::TextLayer); // a scan that has been recognized before
        assert_eq!(read(When::Auto, 400, 0.5), Reading::TextLayer); // a figure and some text
        assert_eq!(read(When::Auto, 3, 0.05), Reading::TextLayer); // a page number and a logo
        assert_eq!(read(When::Auto, 0, 0.0), Reading::Nothing); // blank
    }

    #[test]
    fn always_and_never_are_taken_at_their_word() {
        assert_eq!(read(When::Always, 3000, 0.0), Reading::Ocr);
        assert_eq!(read(When::Always, 0, 0.0), Reading::Ocr);
        assert_eq!(read(When::Never, 0, 1.0), Reading::Nothing);
        assert_eq!(read(When::Never, 60, 1.0), Reading::TextLayer);
    }

    #[test]
    fn a_vision_model_reads_what_would_be_recognized_or_everything() {
        let read = |vision, ocr, text_chars, image_coverage| {
            let rules = Rules {
                vision,
                ocr,
                ..Rules::default()
            };
            route(&rules, &facts(text_chars, image_coverage)).reading
        };
        assert_eq!(read(When::Auto, When::Auto, 0, 1.0), Reading::VisionModel);
        assert_eq!(read(When::Auto, When::Never, 0, 1.0), Reading::VisionModel);
        assert_eq!(read(When::Auto, When::Auto, 3000, 0.0), Reading::TextLayer);
        assert_eq!(read(When::Auto, When::Always, 3000, 0.0), Reading::Ocr);
        assert_eq!(read(When::Always, When::Always, 3000, 0.0), Reading::VisionModel);
        assert_eq!(read(When::Always, When::Never, 0, 0.0), Reading::VisionModel);
        assert_eq!(read(When::Never, When::Auto, 0, 1.0), Reading::Ocr);
    }

    #[test]
    fn a_blank_page_is_stored_and_not_embedded() {
        let blank = route(&Rules::default(), &facts(0, 0.0));
        assert!(blank.store && !blank.embed);
    }

    #[test]
    fn an_unreadable_page_has_a_route() {
        let rules = Rules {
            ocr: When::Always,
            ..Rules::default()
        };
        let route = route(
            &rules,
            &PageFacts {
                readable: false,
                ..facts(0, 0.0)
            },
        );
        assert_eq!((route.reading, route.store), (Reading::TextLayer, true));
    }

    #[test]
    fn stages_that_are_off_are_off() {
        let rules = Rules {
            embed: false,
            store: false,
            ..Rules::default()
        };
        let route = route(&rules, &facts(3000, 0.0));
        assert!(!route.embed && !route.store);
    }
}
