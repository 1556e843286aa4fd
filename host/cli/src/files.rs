//! The files a run was given: PDFs by name, and those found in folders.

use std::path::{Path, PathBuf};

/// Folders below a given one that are searched; deeper ones are left alone.
const DEPTH: usize = 16;

/// What was found: files to ingest, and folders without files to ingest, with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) refused: Vec<(PathBuf, String)>,
}

/// Every given file as it is, and every `*.pdf` below a given folder in order of names. A folder that cannot be read does no
/// harm to the rest. Links inside folders are not followed, so no circle can be walked.
pub(crate) fn find(given: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in given {
        if path.is_dir() {
            let before = found.files.len() + found.refused.len();
            walk(path, DEPTH, &mut found);
            if found.files.len() + found.refused.len() == before {
                found
                    .refused
                    .push((path.clone(), "there is no PDF in this folder".into()));
            }
        } else {
            found.files.push(path.clone());
        }
    }
    found
}

fn walk(folder: &Path, depth: usize, found: &mut Found) {
    let entries = match std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => return found.refused.push((folder.to_owned(), error.to_string())),
    };
    let mut paths: Vec<_> = entries
        .iter()
        .filter_map(|e| Some((e.path(), e.file_type().ok()?)))
        .collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in paths {
        if kind.is_dir() && depth > 0 {
            walk(&path, depth - 1, found);
        } else if kind.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pdf")) {
            found.files.push(path);
        }
    }
}
