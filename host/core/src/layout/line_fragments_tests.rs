use super::*;
use crate::layout::sort_into_reading_order;
use crate::page::Rect;

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

#[test]
fn fragments_on_a_baseline_become_a_line() {
    let ocr = |text: &str, x: f32, y: f32| Line {
        confidence: 0.9,
        ..make_line(text, x, y)
    };
    let page = vec![
        ocr("the upper", 0.185, 0.2005),
        ocr("keeper", 0.1, 0.2),
        ocr("opens", 0.6, 0.2),
        ocr("gate", 0.268, 0.1995),
    ];
    let lines = sort_into_reading_order(page);
    assert_eq!(line_texts(&lines), ["keeper", "the upper gate", "opens"]);
    assert!((lines[1].rect.right() - (0.268 + 4.0 * 0.0085)).abs() < 1e-4);
    let layer = sort_into_reading_order(vec![
        make_line("lo", 0.1, 0.2),
        make_line("ck", 0.117, 0.2),
        make_line("gate", 0.142, 0.2),
    ]);
    assert_eq!(line_texts(&layer), ["lock gate"]);
}

#[test]
fn many_lines_at_one_position_stay_short_and_fast() {
    let page: Vec<Line> = (0..20_000)
        .map(|i| Line {
            rect: Rect::default(),
            ..make_line(&i.to_string(), 0.0, 0.0)
        })
        .collect();
    let started = std::time::Instant::now();
    assert!(
        sort_into_reading_order(page)
            .iter()
            .all(|l| l.text.len() <= 2 * MAX_LINE_BYTES)
    );
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn narrow_gutter_separates_lines() {
    let mut page = Vec::new();
    for i in 0..6_u8 {
        let y = 0.2 + 0.02 * f32::from(i);
        let left = make_line(&format!("a{i} is a line of the left column"), 0.1, y);
        let x = left.rect.right() + 1.3 * 0.0085;
        page.push(left);
        page.push(make_line(&format!("b{i} is a line of the right one"), x, y));
    }
    let one = sort_into_reading_order(page[..2].to_vec());
    assert_eq!(
        line_texts(&one),
        ["a0 is a line of the left column b0 is a line of the right one"]
    );
    let starts: String = sort_into_reading_order(page)
        .iter()
        .map(|line| &line.text[..2])
        .collect();
    assert_eq!(starts, "a0a1a2a3a4a5b0b1b2b3b4b5");
}
