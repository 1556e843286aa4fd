//! What is no model is said so when the provider is set up, with what to do.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use weir_llm::{Local, LocalConfig};

use crate::{config, small};

fn refused(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let opened = Local::open(LocalConfig {
        file: file.path().into(),
        ..config()
    });
    let error = opened.err().expect("it was taken");
    assert!(
        error.contains(&*file.path().to_string_lossy()) && !error.contains('\n'),
        "{error}"
    );
    error
}

#[test]
fn a_file_that_is_no_model_is_refused_by_name() {
    let missing = Local::open(LocalConfig {
        file: "/no/such/model.gguf".into(),
        ..config()
    });
    let error = missing.err().unwrap();
    assert!(error.contains("/no/such/model.gguf cannot be read"), "{error}");
    assert!(refused(b"").contains("cannot be read"));
    assert!(refused(b"<html>not found</html>").contains("is no GGUF model"));
    let folder = Local::open(LocalConfig {
        file: "/tmp".into(),
        ..config()
    });
    assert!(folder.err().unwrap().contains("cannot be read"));
}

#[test]
fn a_model_that_is_damaged_or_cut_short_is_refused_at_once() {
    let mut whole = std::fs::File::open(small()).unwrap();
    let length = whole.metadata().unwrap().len();
    let mut head = vec![0; 1 << 16];
    whole.read_exact(&mut head).unwrap();
    // The words end in the middle of the vocabulary.
    assert!(refused(&head).contains("cannot be used, fetch it again"));
    // Nothing behind the magic.
    assert!(refused(b"GGUF\x03\0\0\0").contains("cannot be used, fetch it again"));
    // A version that no llama.cpp has seen.
    let mut odd = head.clone();
    odd[4] = 0x7f;
    assert!(refused(&odd).contains("cannot be used"));
    // All the words, and the weights but for their last bytes.
    let mut most = vec![0; usize::try_from(length).unwrap() - 4096];
    whole.seek(SeekFrom::Start(0)).unwrap();
    whole.read_exact(&mut most).unwrap();
    let error = refused(&most);
    assert!(error.contains("not within the file bounds"), "{error}");
}

#[test]
fn more_at_once_than_it_decodes_is_refused() {
    let opened = Local::open(LocalConfig {
        concurrency: 65,
        ..config()
    });
    assert!(opened.err().unwrap().contains("lower its concurrency"));
}
