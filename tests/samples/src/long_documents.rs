//! Generators of long documents for measurements.
//!
//! Repeated pages are useless for measurements, because all their passages would have the same vector. So each chapter has its own
//! subjects, and sentences combine the subject's words with invented names and numbers. They make no sense but look like text.

use crate::fonts::Typeface;
use crate::pdf_document::{A4_POINTS, Bookmark, Document, Page};
use crate::random::RandomNumbers;
use crate::scanned_pages::{LETTER_SCANS, decode_jpeg_size, full_page_image};
use crate::text_markup::TextBlock;
use crate::typesetter::{PageStyle, Typesetter};

const PAGES_PER_CHAPTER: usize = 8;

/// Subjects, each with a name, nouns, verbs and adjectives.
const SUBJECTS: [(&str, &str, &str, &str); 14] = [
    (
        "rivers",
        "river current flood bank ferry lock barge gauge sluice estuary delta meander",
        "rises floods carries drains silts thaws",
        "muddy swift shallow tidal navigable",
    ),
    (
        "baking",
        "dough oven loaf yeast crust flour baker rye sourdough pastry kneading trough",
        "bakes proves burns swells cools browns",
        "crisp warm salted leavened fragrant",
    ),
    (
        "astronomy",
        "comet telescope orbit nebula planet eclipse observatory galaxy meteor lens crater moon",
        "shines orbits fades collapses transits reddens",
        "distant faint luminous elliptical frozen",
    ),
    (
        "railways",
        "locomotive signal track boiler carriage junction tunnel timetable platform piston gauge viaduct",
        "departs brakes couples hauls whistles derails",
        "punctual narrow electric rusty crowded",
    ),
    (
        "medicine",
        "fever vaccine surgeon artery diagnosis ward antibiotic nurse symptom lung infection dose",
        "heals infects recovers prescribes worsens clots",
        "chronic acute sterile contagious benign",
    ),
    (
        "music",
        "violin orchestra melody rhythm choir organ conductor sonata trumpet chord rehearsal string",
        "plays modulates resonates tunes echoes repeats",
        "loud harmonic muted solemn dissonant",
    ),
    (
        "law",
        "contract judge verdict appeal statute witness testimony clause debtor court plaintiff fine",
        "rules testifies sues acquits binds expires",
        "guilty lawful disputed void binding",
    ),
    (
        "bees",
        "hive honey swarm queen drone pollen comb beekeeper nectar larva smoker brood",
        "swarms forages hums dances winters stings",
        "golden industrious waxen mild fertile",
    ),
    (
        "software",
        "compiler kernel cache thread database protocol packet memory scheduler pointer server query",
        "compiles crashes allocates blocks retries commits",
        "concurrent cached stale encrypted distributed",
    ),
    (
        "weather",
        "storm barometer cloud hail frost front humidity thunder drought monsoon wind forecast",
        "rains gusts clears freezes drifts deepens",
        "humid overcast arctic gusty mild",
    ),
    (
        "painting",
        "canvas pigment portrait fresco brush varnish easel landscape sketch gallery ochre palette",
        "depicts fades glazes hangs cracks restores",
        "vivid unfinished baroque matte monochrome",
    ),
    (
        "mining",
        "shaft ore seam pit drill copper gallery miner tunnel smelter quarry slag",
        "collapses yields floods extracts ventilates crushes",
        "deep exhausted rich timbered dusty",
    ),
    (
        "cooking",
        "soup onion kettle recipe pepper broth mushroom ladle vinegar stew garlic lentil",
        "simmers boils thickens sours marinates roasts",
        "bitter peppery tender smoked sweet",
    ),
    (
        "sailing",
        "mast keel anchor harbour rudder sail compass hull tide pilot reef schooner",
        "tacks drifts founders anchors heels capsizes",
        "leeward seaworthy becalmed leaky rigged",
    ),
];

const SYLLABLES: [&str; 20] = [
    "bra", "kel", "mon", "tir", "vas", "len", "dor", "hal", "sen", "wit", "gar", "lub", "rin", "fel", "ost",
    "pra", "um", "nik", "zel", "tha",
];

/// Generates `pages` pages of dense text with about 3000 characters each, in chapters of eight pages, with an outline.
pub fn generate_book(pages: usize, seed: u64) -> Vec<u8> {
    let style = PageStyle {
        page_size: A4_POINTS,
        side_margin: 62.0,
        vertical_margin: 66.0,
        columns: 1,
        gutter: 0.0,
        body_typeface: Typeface::Serif,
        heading_typeface: Typeface::SansBold,
        font_size: 12.0,
        line_height: 17.6,
        justify: true,
        chapter_pages: false,
        running_head: Some("A book of many things".to_owned()),
        figure_aspect: 0.5,
    };
    let mut random = RandomNumbers::new(seed);
    let document = Document {
        title: format!("A book of many things, {seed}"),
        ..Document::default()
    };
    let mut typesetter = Typesetter::new(style, document, &|_, _, _| {});
    let mut chapter = 0;
    while typesetter.page_count() <= pages {
        chapter += 1;
        let (first, second) = (
            random.number_below(SUBJECTS.len()),
            random.number_below(SUBJECTS.len()),
        );
        let title = format!(
            "{chapter} Of {} and {}",
            subject_words(first).0,
            subject_words(second).0
        );
        typesetter.add_blocks(&[TextBlock::Heading(1, &title)]);
        let last = pages.min(typesetter.page_count() + PAGES_PER_CHAPTER - 1);
        for count in 0.. {
            if typesetter.page_count() > last {
                break;
            }
            if count % 8 == 0 {
                let (of, what) = (pick_adjective(&mut random, first), pick_noun(&mut random, second));
                let title = format!("{chapter}.{} The {of} {what}", count / 8 + 1);
                typesetter.add_blocks(&[TextBlock::Heading(2, &title)]);
            }
            let text = generate_paragraph(&mut random, [first, second]);
            typesetter.add_blocks(&[TextBlock::Paragraph(&text)]);
        }
    }
    let mut document = typesetter.finish();
    document.pages.truncate(pages);
    document.outline.retain(|entry| entry.page < pages);
    document.to_pdf_bytes()
}

/// Generates `pages` short pages of text.
pub fn generate_text_document(pages: usize, seed: u64) -> Vec<u8> {
    let mut random = RandomNumbers::new(seed);
    let mut document = Document::default();
    for number in 1..=pages {
        let mut page = Page::new(A4_POINTS);
        let subject = random.number_below(SUBJECTS.len());
        page.draw_text(Typeface::SansBold, 16.0, 72.0, 740.0, &format!("Page {number}"));
        for line in 0..12_u8 {
            let sentence = generate_sentence(&mut random, subject);
            page.draw_text(
                Typeface::Serif,
                11.0,
                72.0,
                710.0 - 16.0 * f32::from(line),
                &sentence,
            );
        }
        document.pages.push(page);
    }
    document.to_pdf_bytes()
}

/// Generates `count` chapters with headings and an outline. They are short, five on a page, except that every 64th has about
/// 6000 characters.
pub fn generate_chapters(count: usize) -> Vec<u8> {
    const TOP: f32 = 770.0;
    const LEADING: f32 = 16.0;
    let mut random = RandomNumbers::new(count as u64);
    let mut document = Document {
        title: format!("A book of {count} chapters"),
        ..Document::default()
    };
    let (mut page, mut y) = (Page::new(A4_POINTS), TOP);
    for number in 1..=count {
        let subject = random.number_below(SUBJECTS.len());
        let lines = if number % 64 == 0 { 90 } else { 5 };
        if y < 72.0 + LEADING * 7.0 {
            document
                .pages
                .push(std::mem::replace(&mut page, Page::new(A4_POINTS)));
            y = TOP;
        }
        let title = format!("Chapter {number} of {}", self::subject_words(subject).0);
        page.draw_text(Typeface::SansBold, 16.0, 72.0, y, &title);
        document.outline.push(Bookmark {
            title,
            level: 1,
            page: document.pages.len(),
        });
        y -= 1.5 * LEADING;
        for _ in 0..lines {
            if y < 72.0 {
                document
                    .pages
                    .push(std::mem::replace(&mut page, Page::new(A4_POINTS)));
                y = TOP;
            }
            page.draw_text(
                Typeface::Serif,
                11.0,
                72.0,
                y,
                &generate_sentence(&mut random, subject),
            );
            y -= LEADING;
        }
        y -= LEADING;
    }
    document.pages.push(page);
    document.to_pdf_bytes()
}

/// Generates `pages` scanned pages that repeat the letter's pages. Each page's number is drawn as shapes, so that no two pages look
/// the same and none has a text layer.
pub fn generate_scanned_book(pages: usize) -> Vec<u8> {
    let mut document = Document {
        images: LETTER_SCANS
            .iter()
            .filter_map(|jpeg| decode_jpeg_size(jpeg))
            .collect(),
        ..Document::default()
    };
    for number in 1..=pages {
        let mut page = full_page_image((number - 1) % LETTER_SCANS.len());
        draw_page_number(&mut page, number);
        document.pages.push(page);
    }
    document.to_pdf_bytes()
}

/// Draws a number in seven segments: shapes, since text would give the page a text layer.
fn draw_page_number(page: &mut Page, number: usize) {
    /// Segments of each digit, one bit each: top, upper right, lower right, bottom, lower left, upper left, middle.
    const DIGITS: [u8; 10] = [0x3f, 0x06, 0x5b, 0x4f, 0x66, 0x6d, 0x7d, 0x07, 0x7f, 0x6f];
    const SEGMENTS: [(f32, f32, f32, f32); 7] = [
        (0.0, 18.0, 10.0, 2.0),
        (8.0, 9.0, 2.0, 11.0),
        (8.0, 0.0, 2.0, 11.0),
        (0.0, 0.0, 10.0, 2.0),
        (0.0, 0.0, 2.0, 11.0),
        (0.0, 9.0, 2.0, 11.0),
        (0.0, 9.0, 10.0, 2.0),
    ];
    page.content.set_fill_gray(0.15);
    for (at, digit) in number.to_string().bytes().enumerate() {
        let digit = DIGITS
            .get(usize::from(digit.wrapping_sub(b'0')))
            .copied()
            .unwrap_or(0);
        for (bit, (x, y, width, height)) in SEGMENTS.into_iter().enumerate() {
            if digit >> bit & 1 == 1 {
                page.content
                    .rect(480.0 + 14.0 * at as f32 + x, 790.0 + y, width, height)
                    .fill_nonzero();
            }
        }
    }
}

fn subject_words(of: usize) -> (&'static str, &'static str, &'static str, &'static str) {
    SUBJECTS.get(of).copied().unwrap_or_default()
}

fn pick_word(random: &mut RandomNumbers, words: &'static str) -> &'static str {
    random.pick(&words.split(' ').collect::<Vec<_>>())
}

fn pick_noun(random: &mut RandomNumbers, of: usize) -> &'static str {
    pick_word(random, subject_words(of).1)
}

fn pick_verb(random: &mut RandomNumbers, of: usize) -> &'static str {
    pick_word(random, subject_words(of).2)
}

fn pick_adjective(random: &mut RandomNumbers, of: usize) -> &'static str {
    pick_word(random, subject_words(of).3)
}

fn invent_name(random: &mut RandomNumbers) -> String {
    let mut name: String = (0..2 + random.number_below(2))
        .map(|_| random.pick(&SYLLABLES))
        .collect();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

fn generate_sentence(random: &mut RandomNumbers, of: usize) -> String {
    let (a, b, c) = (
        pick_noun(random, of),
        pick_noun(random, of),
        pick_noun(random, of),
    );
    let (verb, adjective, other) = (
        pick_verb(random, of),
        pick_adjective(random, of),
        pick_adjective(random, of),
    );
    let (name, year, count) = (
        invent_name(random),
        1700 + random.number_below(320),
        2 + random.number_below(900),
    );
    match random.number_below(8) {
        0 => format!("In {year} the {adjective} {a} of {name} {verb} near a {b}."),
        1 => format!("{name} wrote that no {a} is {adjective} for long, and that every {b} {verb}."),
        2 => format!("Of {count} {adjective} cases, the {a} {verb} before the {b} in all but a few."),
        3 => format!("When the {a} {verb}, the {other} {b} is moved away from the {c}."),
        4 => format!("The {a} at {name} was {adjective}, {other} and about {count} years old."),
        5 => format!("Whoever has seen a {adjective} {a} knows why the {b} {verb} so rarely."),
        6 => format!("A {b} costs {count} thaler in {name}, where the {a} is {other}."),
        _ => format!(
            "Neither the {a} nor the {adjective} {b} {verb} without a {c}, as {name} showed in {year}."
        ),
    }
}

fn generate_paragraph(random: &mut RandomNumbers, subjects: [usize; 2]) -> String {
    let mut text = String::new();
    for _ in 0..5 + random.number_below(6) {
        let of = if random.number_below(3) == 0 {
            subjects[1]
        } else {
            subjects[0]
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&generate_sentence(random, of));
    }
    text
}
