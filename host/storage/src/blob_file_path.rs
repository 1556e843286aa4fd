//! The paths of blobs that are files.
//!
//! The first segment of a key, which is a document, is a folder. The others are one file name, joined by a character that no key has:
//! `<document>/3/image/150.jpg` is the file `<document>/3+image+150.jpg`. So a page needs no folders, each of which would take a block and
//! would have to be synced. Earlier versions made a folder of each segment, and so does a key whose name would be too long.

use std::path::{Path, PathBuf};

use weir_core::blob_key::MAX_BLOB_KEY_SEGMENT_BYTES;

/// Stands for the slashes after the first one.
const SEPARATOR: &str = "+";

/// Returns the path below a tenant's folder to which a blob is written.
pub(crate) fn blob_file_path(tenant_folder: &Path, key: &str) -> PathBuf {
    match key.split_once('/') {
        Some((document, rest)) if rest.len() <= MAX_BLOB_KEY_SEGMENT_BYTES => {
            tenant_folder.join(document).join(rest.replace('/', SEPARATOR))
        }
        _ => nested_blob_file_path(tenant_folder, key),
    }
}

/// Returns the path to which earlier versions wrote a blob, which may be the same.
pub(crate) fn nested_blob_file_path(tenant_folder: &Path, key: &str) -> PathBuf {
    tenant_folder.join(key)
}

/// Returns the end of a key that a file or folder name stands for.
pub(crate) fn key_of_file_name(name: &str) -> String {
    name.replace(SEPARATOR, "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_folder_for_the_document_and_one_file_name() {
        let long = format!("d/{}/x", "y".repeat(MAX_BLOB_KEY_SEGMENT_BYTES - 2));
        let too_long = format!("d/{}/xx", "y".repeat(MAX_BLOB_KEY_SEGMENT_BYTES - 2));
        for (key, path) in [
            ("k", "/t/k"),
            ("d/1", "/t/d/1"),
            ("d/1/image/150.jpg", "/t/d/1+image+150.jpg"),
            (&long, &format!("/t/{}+x", long.strip_suffix("/x").unwrap())),
            (&too_long, &format!("/t/{too_long}")),
        ] {
            let found = blob_file_path(Path::new("/t"), key);
            assert_eq!(found, Path::new(path));
            assert_eq!(
                key_of_file_name(found.strip_prefix("/t").unwrap().to_str().unwrap()),
                key
            );
        }
    }
}
