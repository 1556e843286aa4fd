//! A file that is not a usable model is refused when the provider is set up, with the reason and the remedy.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use weir_llm::{LocalConfig, LocalProvider};

use crate::{local_config, small_model_file};

fn open_error(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let opened = LocalProvider::inspect_file_and_start(LocalConfig {
        model_file: file.path().into(),
        ..local_config()
    });
    let error = opened.err().expect("the file is refused");
    assert!(
        error.contains(&*file.path().to_string_lossy()) && !error.contains('\n'),
        "{error}"
    );
    error
}

#[test]
fn file_that_is_no_model_is_refused_with_its_path() {
    let missing = LocalProvider::inspect_file_and_start(LocalConfig {
        model_file: "/no/such/model.gguf".into(),
        ..local_config()
    });
    let error = missing.err().unwrap();
    assert!(error.contains("/no/such/model.gguf cannot be read"), "{error}");
    assert!(open_error(b"").contains("cannot be read"));
    assert!(open_error(b"<html>not found</html>").contains("is no GGUF model"));
    let folder = LocalProvider::inspect_file_and_start(LocalConfig {
        model_file: "/tmp".into(),
        ..local_config()
    });
    assert!(folder.err().unwrap().contains("cannot be read"));
}

#[test]
fn damaged_or_truncated_model_is_refused() {
    let mut whole = std::fs::File::open(small_model_file()).unwrap();
    let length = whole.metadata().unwrap().len();
    let mut head = vec![0; 1 << 16];
    whole.read_exact(&mut head).unwrap();
    // The file ends in the middle of the vocabulary.
    assert!(open_error(&head).contains("download it again"));
    // The file ends after the magic number.
    assert!(open_error(b"GGUF\x03\0\0\0").contains("download it again"));
    // A version that llama.cpp does not know.
    let mut odd = head.clone();
    odd[4] = 0x7f;
    assert!(open_error(&odd).contains("cannot load its file"));
    // The whole vocabulary, and the weights except for the last bytes.
    let mut most = vec![0; usize::try_from(length).unwrap() - 4096];
    whole.seek(SeekFrom::Start(0)).unwrap();
    whole.read_exact(&mut most).unwrap();
    let error = open_error(&most);
    assert!(error.contains("not within the file bounds"), "{error}");
}

#[test]
fn concurrency_above_the_maximum_is_refused() {
    let opened = LocalProvider::inspect_file_and_start(LocalConfig {
        max_concurrency: 65,
        ..local_config()
    });
    assert!(opened.err().unwrap().contains("lower its concurrency"));
}
