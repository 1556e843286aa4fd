use super::*;

/// How often `part` stands in a file.
fn count(file: &[u8], part: &str) -> usize {
    file.windows(part.len()).filter(|w| *w == part.as_bytes()).count()
}

#[test]
fn every_document_is_the_same_each_time() {
    for (name, bytes) in all() {
        assert!(bytes.len() < 300_000, "{name} has {} bytes", bytes.len());
        assert!(
            all()
                .iter()
                .any(|(other, again)| *other == name && *again == bytes),
            "{name}"
        );
    }
    assert_eq!(book(30, 7), book(30, 7));
    assert_ne!(book(30, 7), book(30, 8));
    assert_eq!(encrypted("x"), encrypted("x"));
    assert_ne!(encrypted("x"), encrypted("y"));
}

#[test]
fn a_document_has_the_pages_it_was_asked_for() {
    for pages in [1, 7, 100] {
        for file in [
            book(pages, 1),
            text_document(pages, 1),
            scanned_book(pages),
            empty_pages(pages),
        ] {
            assert_eq!(count(&file, "/Type /Page\n"), pages);
        }
    }
    assert_eq!(count(&handbook(), "/Type /Page\n"), 12);
    assert_eq!(count(&one_bad_page(9, 4), "/Type /Page\n"), 8);
}

#[test]
fn every_page_of_a_book_is_full_of_words_of_its_own() {
    let file = String::from_utf8_lossy(&book(40, 1)).into_owned();
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
fn the_answers_stand_in_the_texts() {
    let texts = [
        include_str!("../text/handbook.txt"),
        include_str!("../text/survey.txt"),
        include_str!("../text/letter.txt"),
    ];
    let text = texts.concat().replace("\\-", "");
    let phrases: Vec<&str> = QUESTIONS
        .lines()
        .filter_map(|l| l.strip_prefix("phrase = \"")?.strip_suffix('"'))
        .collect();
    assert!(phrases.len() >= 24);
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase}");
    }
}

#[test]
fn a_bomb_is_small_and_unpacks_to_gigabytes() {
    let file = decompression_bomb();
    assert!(file.len() < 200_000);
    assert_eq!(count(&file, "/FlateDecode /FlateDecode"), 2);
}

#[test]
fn scans_have_pictures_and_no_text() {
    for file in [letter_scan(), scanned_book(5)] {
        assert_eq!(count(&file, "/Filter /DCTDecode"), 3);
        assert_eq!(count(&file, " Tj"), 0);
    }
}
