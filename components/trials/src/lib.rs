//! Common code of the components for canary tests. Each file in `examples/` is one component, `trial-….wasm`.

use weir_sdk::routing::{PageRoute, Reading};
use weir_sdk::{DocumentId, Label, PageFacts};

/// Returns a route that reads the text layer, stores the page image, and labels the page with the name of the component.
pub fn labeled_page_route(by: &str) -> PageRoute {
    PageRoute {
        reading: Reading::TextLayer,
        embed: weir_sdk::settings::get_or("embed", true),
        store: true,
        labels: vec![Label {
            name: "trial".into(),
            value: by.into(),
        }],
    }
}

/// Returns a number from 0 to 19 that depends only on the document and the page number (FNV-1a hash).
pub fn page_hash_below_20(document: &DocumentId, page: &PageFacts) -> u64 {
    let bytes = document.bytes().chain(page.number.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) % 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_page_of_twenty_has_hash_value_zero() {
        let page = |number| PageFacts {
            number,
            width: 595.0,
            height: 842.0,
            text_chars: 1000,
            image_coverage: 0.0,
            readable: true,
        };
        let documents: Vec<DocumentId> = (0..200).map(|n| format!("{n:064x}")).collect();
        let all = documents
            .iter()
            .flat_map(|d| (1..=50).map(move |n| page_hash_below_20(d, &page(n))));
        let chosen = all.filter(|number| *number == 0).count();
        assert!((430..570).contains(&chosen), "{chosen} of 10000");
    }
}
