//! Reads the outline of a document, within limits: a hostile outline may be endless, circular or very deep.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use weir_core::page::OutlineEntry;

use super::pdfium::{Bookmark, Document};
use crate::response_validation::{MAX_OUTLINE_ENTRIES, MAX_OUTLINE_LEVELS, sanitize_title};

/// Time limit for reading an outline. Finding the page of an entry is slow in large documents.
const OUTLINE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn read_outline(document: &Document) -> Vec<OutlineEntry> {
    let begun = Instant::now();
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    // The next entry to visit on each level, from the top level down.
    let mut path: Vec<Bookmark<'_>> = document.first_bookmark().into_iter().collect();
    while let Some(bookmark) = path.pop() {
        if !seen.insert(bookmark.handle_address()) {
            continue;
        }
        if entries.len() >= MAX_OUTLINE_ENTRIES || begun.elapsed() > OUTLINE_TIMEOUT {
            break;
        }
        let level = path.len() + 1;
        entries.push(OutlineEntry {
            title: sanitize_title(&bookmark.title()),
            level: u8::try_from(level).unwrap_or(MAX_OUTLINE_LEVELS),
            page: bookmark
                .destination_page_index()
                .map(|index| index.saturating_add(1)),
        });
        let child = (level < usize::from(MAX_OUTLINE_LEVELS))
            .then(|| bookmark.first_child())
            .flatten();
        // A placeholder for a missing sibling keeps the length of the path equal to the level.
        match (bookmark.next_sibling(), child) {
            (Some(sibling), Some(child)) => path.extend([sibling, child]),
            (None, Some(child)) => path.extend([bookmark, child]),
            (Some(sibling), None) => path.push(sibling),
            (None, None) => {}
        }
    }
    entries
}
