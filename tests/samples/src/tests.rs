use super::*;

fn count_occurrences(file: &[u8], part: &str) -> usize {
    file.windows(part.len()).filter(|w| *w == part.as_bytes()).count()
}

#[test]
fn every_document_is_the_same_each_time() {
    for (name, bytes) in sample_files() {
        assert!(bytes.len() < 300_000, "{name} has {} bytes", bytes.len());
        assert!(
            sample_files()
                .iter()
                .any(|(other, again)| *other == name && *again == bytes),
            "{name}"
        );
    }
    assert_eq!(generate_book(30, 7), generate_book(30, 7));
    assert_ne!(generate_book(30, 7), generate_book(30, 8));
    assert_eq!(encrypted_document("x"), encrypted_document("x"));
    assert_ne!(encrypted_document("x"), encrypted_document("y"));
}

#[test]
fn documents_have_the_requested_number_of_pages() {
    for pages in [1, 7, 100] {
        for file in [
            generate_book(pages, 1),
            generate_text_document(pages, 1),
            generate_scanned_book(pages),
            document_of_empty_pages(pages),
        ] {
            assert_eq!(count_occurrences(&file, "/Type /Page\n"), pages);
        }
    }
    assert_eq!(count_occurrences(&handbook_document(), "/Type /Page\n"), 12);
    assert_eq!(
        count_occurrences(&document_with_bad_page(9, 4), "/Type /Page\n"),
        8
    );
}

#[test]
fn book_pages_are_full_and_do_not_repeat_lines() {
    let file = String::from_utf8_lossy(&generate_book(40, 1)).into_owned();
    let pages: Vec<&str> = file.split("/Type /Page\n").skip(1).collect();
    let lines = |page: &str| -> Vec<String> {
        page.lines()
            .filter(|l| l.ends_with(" Tj"))
            .map(str::to_owned)
            .collect()
    };
    let mut seen = std::collections::HashSet::new();
    for page in &pages[..39] {
        let lines = lines(page);
        let characters: usize = lines.iter().map(String::len).sum();
        assert!(characters > 2000, "{characters}");
        let new = lines.iter().filter(|l| seen.insert((*l).clone())).count();
        assert!(
            new * 10 >= lines.len() * 9,
            "{new} of {} lines are new",
            lines.len()
        );
    }
}

#[test]
fn expected_phrases_are_in_the_sample_texts() {
    let texts = [
        include_str!("../text/handbook.txt"),
        include_str!("../text/survey.txt"),
        include_str!("../text/letter.txt"),
    ];
    let text = texts.concat().replace("\\-", "");
    let phrases: Vec<&str> = SAMPLE_QUESTIONS
        .lines()
        .filter_map(|l| l.strip_prefix("phrase = \"")?.strip_suffix('"'))
        .collect();
    assert!(phrases.len() >= 24);
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase}");
    }
}

#[test]
fn decompression_bomb_file_is_small() {
    let file = decompression_bomb_document();
    assert!(file.len() < 200_000);
    assert_eq!(count_occurrences(&file, "/FlateDecode /FlateDecode"), 2);
}

#[test]
fn scans_have_pictures_and_no_text() {
    for file in [scanned_letter_document(), generate_scanned_book(5)] {
        assert_eq!(count_occurrences(&file, "/Filter /DCTDecode"), 3);
        assert_eq!(count_occurrences(&file, " Tj"), 0);
    }
}
