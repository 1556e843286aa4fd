use super::*;
use crate::page::Rect;

/// Returns a line whose width fits its text: 0.0085 of the page width for each character.
fn make_line(text: &str, x: f32, y: f32) -> Line {
    Line {
        text: text.into(),
        rect: Rect {
            x,
            y,
            width: text.chars().count() as f32 * 0.0085,
            height: 0.014,
        },
        size: 10.0,
        confidence: 1.0,
    }
}

fn line_texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|l| l.text.as_str()).collect()
}

/// Returns the texts in reading order, and checks that the input order does not matter.
fn read_in_both_directions(lines: &[Line]) -> Vec<String> {
    let forward = sort_into_reading_order(lines.to_vec());
    let mut backward: Vec<Line> = lines.to_vec();
    backward.reverse();
    assert_eq!(
        line_texts(&forward),
        line_texts(&sort_into_reading_order(backward))
    );
    forward.into_iter().map(|l| l.text).collect()
}

fn make_column(name: &str, x: f32, from: f32, lines: usize) -> Vec<Line> {
    (0..lines)
        .map(|i| {
            make_line(
                &format!("{name}{i:02} and forty letters of running text"),
                x,
                from + i as f32 * 0.017,
            )
        })
        .collect()
}

fn first_words(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|l| l.split(' ').next().unwrap()).collect()
}

#[test]
fn two_columns_are_read_one_after_the_other() {
    for shift in [0.0, 0.006] {
        let mut page = make_column("a", 0.1, 0.1, 4);
        page.extend(make_column("b", 0.53, 0.1 + shift, 4));
        let order = read_in_both_directions(&page);
        assert_eq!(
            first_words(&order),
            ["a00", "a01", "a02", "a03", "b00", "b01", "b02", "b03"]
        );
    }
}

#[test]
fn aligned_paragraph_breaks_do_not_split_columns() {
    let mut page = Vec::new();
    for (name, x) in [("a", 0.1), ("b", 0.53)] {
        page.extend(make_column(name, x, 0.1, 2));
        page.extend(make_column(&format!("{name}x"), x, 0.2, 2));
    }
    let order = read_in_both_directions(&page);
    assert_eq!(
        first_words(&order),
        ["a00", "a01", "ax00", "ax01", "b00", "b01", "bx00", "bx01"]
    );
}

#[test]
fn heading_over_two_columns_separates_the_columns_around_it() {
    let wide = "A heading that runs over both of the columns and has no end before the margin";
    let mut page = vec![make_line(wide, 0.15, 0.3)];
    for (name, x) in [("a", 0.1), ("b", 0.53)] {
        page.extend(make_column(name, x, 0.1, 2));
        page.extend(make_column(&format!("{name}x"), x, 0.35, 2));
    }
    let order = read_in_both_directions(&page);
    assert_eq!(
        first_words(&order),
        ["a00", "a01", "b00", "b01", "A", "ax00", "ax01", "bx00", "bx01"]
    );
}

#[test]
fn title_and_caption_stay_in_their_column() {
    let mut page = vec![
        make_line("2 Short title", 0.1, 0.1),
        make_line("Figure 1: levels", 0.53, 0.2),
        make_line("3 Next", 0.1, 0.5),
    ];
    page.extend(make_column("a", 0.1, 0.13, 20));
    page.extend(make_column("c", 0.1, 0.53, 2));
    page.extend(make_column("b", 0.53, 0.23, 10));
    let order = read_in_both_directions(&page);
    let at = |text: &str| order.iter().position(|l| l.starts_with(text)).unwrap();
    assert_eq!(at("2 Short"), 0);
    assert!(at("a19") < at("3 Next") && at("3 Next") < at("c00"));
    assert!(at("c01") < at("Figure 1") && at("Figure 1") < at("b00"));
}

#[test]
fn tables_are_read_row_by_row() {
    let mut page = Vec::new();
    for (i, row) in [
        ["Gate", "Width", "Depth"],
        ["Upper", "8.2 m", "3.1 m"],
        ["Lower", "8.4 m", "3.6 m"],
    ]
    .iter()
    .enumerate()
    {
        for (j, cell) in row.iter().enumerate() {
            page.push(make_line(cell, 0.1 + 0.25 * j as f32, 0.2 + 0.02 * i as f32));
        }
    }
    let order = read_in_both_directions(&page);
    assert_eq!(
        order,
        [
            "Gate", "Width", "Depth", "Upper", "8.2 m", "3.1 m", "Lower", "8.4 m", "3.6 m"
        ]
    );
}

#[test]
fn numbered_items_keep_their_numbers() {
    let mut page = Vec::new();
    for i in 0..3_u8 {
        let y = 0.2 + 0.06 * f32::from(i);
        page.push(make_line(&format!("{}.", i + 1), 0.1, y));
        page.extend(make_column(&format!("i{i}"), 0.15, y, 3));
    }
    let order = read_in_both_directions(&page);
    assert_eq!(first_words(&order)[..5], ["1.", "i000", "i001", "i002", "2."]);
}

#[test]
fn a_bullet_stays_with_its_line_however_small_its_box() {
    let mut page = vec![make_line(
        "the end of an item that began in another column",
        0.12,
        0.2,
    )];
    for i in 1..4_u8 {
        let y = 0.2 + 0.034 * f32::from(i);
        page.push(make_line(
            &format!("i{i} and what is said about it in a line"),
            0.12,
            y,
        ));
        page.push(make_line("and its end", 0.12, y + 0.017));
        page.push(Line {
            rect: Rect {
                x: 0.1,
                y: y + 0.006,
                width: 0.004,
                height: 0.004,
            },
            ..make_line("•", 0.0, 0.0)
        });
    }
    let order = read_in_both_directions(&page);
    assert_eq!(
        first_words(&order),
        ["the", "•", "i1", "and", "•", "i2", "and", "•", "i3", "and"]
    );
}

#[test]
fn headers_and_footers_frame_the_columns() {
    let mut page = make_column("a", 0.1, 0.12, 40);
    page.extend(make_column("b", 0.53, 0.12, 40));
    page.push(make_line("Handbook", 0.1, 0.04));
    page.push(make_line("Chapter 3", 0.8, 0.04));
    page.push(make_line("Page 17", 0.1, 0.95));
    let order = read_in_both_directions(&page);
    assert_eq!(order[..2], ["Handbook", "Chapter 3"]);
    assert!(order[2].starts_with("a00"));
    assert_eq!(order[82], "Page 17");
}

#[test]
fn page_number_in_the_gutter_comes_last() {
    let mut page = make_column("a", 0.1, 0.12, 40);
    page.extend(make_column("b", 0.425, 0.12, 40));
    page.push(make_line("7", 0.416, 0.88));
    let order = read_in_both_directions(&page);
    assert_eq!(order[80], "7");
    assert!(order[39].starts_with("a39") && order[40].starts_with("b00"));
}

#[test]
fn vertical_margin_text_does_not_join_rows() {
    let mut page = vec![Line {
        rect: Rect {
            x: 0.02,
            y: 0.15,
            width: 0.02,
            height: 0.6,
        },
        ..make_line("Draft of 3 November", 0.0, 0.0)
    }];
    page.push(make_line(
        "A heading that runs over both of the columns and has no end before the margin",
        0.15,
        0.3,
    ));
    for (name, x) in [("a", 0.1), ("b", 0.53)] {
        page.extend(make_column(name, x, 0.2, 2));
        page.extend(make_column(&format!("{name}x"), x, 0.35, 2));
    }
    let order = read_in_both_directions(&page);
    assert_eq!(
        first_words(&order),
        [
            "a00", "a01", "b00", "b01", "A", "ax00", "ax01", "bx00", "bx01", "Draft"
        ]
    );
}

#[test]
fn right_to_left_page_is_unchanged() {
    let page = vec![
        make_line("שער עליון", 0.6, 0.3),
        make_line("שער תחתון", 0.1, 0.1),
        make_line("M 1", 0.3, 0.2),
    ];
    assert_eq!(sort_into_reading_order(page.clone()), page);
}

#[test]
fn no_line_is_lost_for_any_boxes() {
    let mut seed = 7_u64;
    let mut next = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1_u64 << 24) as f32
    };
    let odd = [f32::NAN, f32::INFINITY, -1e30, 1e30, f32::MIN_POSITIVE];
    let mut page = Vec::new();
    for i in 0..20_000_usize {
        let mut rect = Rect {
            x: next(),
            y: next(),
            width: next() * 0.1,
            height: next() * 0.02,
        };
        if i % 50 == 0 {
            rect.x = odd[i / 50 % odd.len()];
            rect.height = odd[i / 250 % odd.len()];
        }
        page.push(Line {
            rect,
            ..make_line(&format!("<{i}>"), 0.0, 0.0)
        });
    }
    let started = std::time::Instant::now();
    let text: String = sort_into_reading_order(page)
        .into_iter()
        .map(|l| l.text)
        .collect();
    let mut seen: Vec<usize> = text
        .split(['<', '>'])
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..20_000));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
