//! The outline of a document, bounded: a hostile one may be endless, circular or very deep.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use weir_core::page::OutlineEntry;

use super::pdfium::{Bookmark, Document};
use crate::answers::{OUTLINE_ENTRIES, OUTLINE_LEVELS, title};

/// Walking it may take this long; finding the page of an entry is slow in large documents.
const TIME: Duration = Duration::from_secs(5);

pub(super) fn outline(document: &Document) -> Vec<OutlineEntry> {
    let begun = Instant::now();
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    // Entries whose siblings are still to be visited, from the highest level down.
    let mut path: Vec<Bookmark<'_>> = document.first_bookmark().into_iter().collect();
    while let Some(bookmark) = path.pop() {
        if !seen.insert(bookmark.id()) {
            continue;
        }
        if entries.len() >= OUTLINE_ENTRIES || begun.elapsed() > TIME {
            break;
        }
        let level = path.len() + 1;
        entries.push(OutlineEntry {
            title: title(&bookmark.title()),
            level: u8::try_from(level).unwrap_or(OUTLINE_LEVELS),
            page: bookmark.page().map(|index| index.saturating_add(1)),
        });
        let child = (level < usize::from(OUTLINE_LEVELS))
            .then(|| bookmark.first_child())
            .flatten();
        // A placeholder for the sibling keeps the length of the path equal to the level.
        match (bookmark.next_sibling(), child) {
            (Some(sibling), Some(child)) => path.extend([sibling, child]),
            (None, Some(child)) => path.extend([bookmark, child]),
            (Some(sibling), None) => path.push(sibling),
            (None, None) => {}
        }
    }
    entries
}
