//! Chooses how a page is read.
//!
//! OCR takes two seconds of a core, the text layer takes a millisecond. So OCR is used only if the text layer is probably incomplete:
//! images cover much of the page, and there is little text. The more images, the more text is required. A scan with a stamp of sixty
//! characters is still a scan; an article with a figure and its caption is not. A page that is drawn with paths only, without text
//! and images, seems blank; `ocr = always` reads it.
//!
//! A vision model takes seconds and money or a GPU, so it is used only if the tenant enables it. It then replaces OCR on the same pages
//! (`vision = auto`) or reads all pages.

use weir_sdk::PageFacts;
use weir_sdk::routing::{PageRoute, Reading};

use crate::routing_settings::{PageSelection, RoutingSettings};

/// Chooses the route of a page. A page that cannot be opened gets one too; the host then reports the failure.
pub(crate) fn route_page(settings: &RoutingSettings, facts: &PageFacts) -> PageRoute {
    let reading = choose_reading(settings, facts);
    PageRoute {
        reading,
        embed: settings.embed && reading != Reading::Nothing,
        store: settings.store,
        labels: Vec::new(),
    }
}

fn choose_reading(settings: &RoutingSettings, facts: &PageFacts) -> Reading {
    let wanted = |when| match when {
        PageSelection::Always => true,
        PageSelection::Auto => has_too_little_text(settings, facts),
        PageSelection::Never => false,
    };
    match facts {
        _ if !facts.readable => Reading::TextLayer,
        _ if wanted(settings.vision) => Reading::VisionModel,
        _ if wanted(settings.ocr) => Reading::Ocr,
        _ if facts.text_chars == 0 => Reading::Nothing,
        _ => Reading::TextLayer,
    }
}

fn has_too_little_text(settings: &RoutingSettings, facts: &PageFacts) -> bool {
    facts.image_coverage >= settings.ocr_min_coverage
        && (facts.text_chars as f32) < settings.ocr_min_chars as f32 * facts.image_coverage
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

    fn read(ocr: PageSelection, text_chars: u32, image_coverage: f32) -> Reading {
        let settings = RoutingSettings {
            ocr,
            ..RoutingSettings::default()
        };
        route_page(&settings, &facts(text_chars, image_coverage)).reading
    }

    #[test]
    fn page_with_too_little_text_for_its_images_gets_ocr() {
        assert_eq!(read(PageSelection::Auto, 3000, 0.0), Reading::TextLayer);
        assert_eq!(read(PageSelection::Auto, 0, 1.0), Reading::Ocr); // a scan
        assert_eq!(read(PageSelection::Auto, 60, 1.0), Reading::Ocr); // a scan with a stamp
        assert_eq!(read(PageSelection::Auto, 2500, 1.0), Reading::TextLayer); // a scan with a text layer from earlier OCR
        assert_eq!(read(PageSelection::Auto, 400, 0.5), Reading::TextLayer); // a figure and some text
        assert_eq!(read(PageSelection::Auto, 3, 0.05), Reading::TextLayer); // a page number and a logo
        assert_eq!(read(PageSelection::Auto, 0, 0.0), Reading::Nothing); // blank
    }

    #[test]
    fn ocr_always_applies_to_every_page_and_never_to_none() {
        assert_eq!(read(PageSelection::Always, 3000, 0.0), Reading::Ocr);
        assert_eq!(read(PageSelection::Always, 0, 0.0), Reading::Ocr);
        assert_eq!(read(PageSelection::Never, 0, 1.0), Reading::Nothing);
        assert_eq!(read(PageSelection::Never, 60, 1.0), Reading::TextLayer);
    }

    #[test]
    fn vision_model_reads_the_ocr_pages_or_all_pages() {
        let read = |vision, ocr, text_chars, image_coverage| {
            let settings = RoutingSettings {
                vision,
                ocr,
                ..RoutingSettings::default()
            };
            route_page(&settings, &facts(text_chars, image_coverage)).reading
        };
        assert_eq!(
            read(PageSelection::Auto, PageSelection::Auto, 0, 1.0),
            Reading::VisionModel
        );
        assert_eq!(
            read(PageSelection::Auto, PageSelection::Never, 0, 1.0),
            Reading::VisionModel
        );
        assert_eq!(
            read(PageSelection::Auto, PageSelection::Auto, 3000, 0.0),
            Reading::TextLayer
        );
        assert_eq!(
            read(PageSelection::Auto, PageSelection::Always, 3000, 0.0),
            Reading::Ocr
        );
        assert_eq!(
            read(PageSelection::Always, PageSelection::Always, 3000, 0.0),
            Reading::VisionModel
        );
        assert_eq!(
            read(PageSelection::Always, PageSelection::Never, 0, 0.0),
            Reading::VisionModel
        );
        assert_eq!(
            read(PageSelection::Never, PageSelection::Auto, 0, 1.0),
            Reading::Ocr
        );
    }

    #[test]
    fn a_blank_page_is_stored_and_not_embedded() {
        let blank = route_page(&RoutingSettings::default(), &facts(0, 0.0));
        assert!(blank.store && !blank.embed);
    }

    #[test]
    fn unreadable_page_is_routed_to_its_text_layer() {
        let settings = RoutingSettings {
            ocr: PageSelection::Always,
            ..RoutingSettings::default()
        };
        let route = route_page(
            &settings,
            &PageFacts {
                readable: false,
                ..facts(0, 0.0)
            },
        );
        assert_eq!((route.reading, route.store), (Reading::TextLayer, true));
    }

    #[test]
    fn disabled_stages_are_not_in_the_route() {
        let settings = RoutingSettings {
            embed: false,
            store: false,
            ..RoutingSettings::default()
        };
        let route = route_page(&settings, &facts(3000, 0.0));
        assert!(!route.embed && !route.store);
    }
}
