//! Finds the input files of a run: named files, and PDF files in named folders.

use std::path::{Path, PathBuf};

/// Maximum depth of subfolders that are searched.
const MAX_FOLDER_DEPTH: usize = 16;

/// Files to ingest, and folders that cannot be ingested with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InputFilesAndRejections {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) rejected: Vec<(PathBuf, String)>,
}

/// Returns each named file unchanged, and each `*.pdf` file below a named folder in order of names. A folder that cannot be
/// read is reported with the reason and does not affect the others. Symbolic links inside folders are not followed, so that
/// a cycle of links cannot cause an endless walk.
pub(crate) fn find_input_files(paths: &[PathBuf]) -> InputFilesAndRejections {
    let mut found = InputFilesAndRejections::default();
    for path in paths {
        if path.is_dir() {
            let before = found.files.len() + found.rejected.len();
            collect_pdf_files(path, MAX_FOLDER_DEPTH, &mut found);
            if found.files.len() + found.rejected.len() == before {
                found
                    .rejected
                    .push((path.clone(), "there is no PDF in this folder".into()));
            }
        } else {
            found.files.push(path.clone());
        }
    }
    found
}

fn collect_pdf_files(folder: &Path, depth: usize, found: &mut InputFilesAndRejections) {
    let entries = match std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => return found.rejected.push((folder.to_owned(), error.to_string())),
    };
    let mut paths: Vec<_> = entries
        .iter()
        .filter_map(|e| Some((e.path(), e.file_type().ok()?)))
        .collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in paths {
        if kind.is_dir() && depth > 0 {
            collect_pdf_files(&path, depth - 1, found);
        } else if kind.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pdf")) {
            found.files.push(path);
        }
    }
}
