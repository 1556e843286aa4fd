use super::*;
use crate::layout::reading_order;
use crate::page::Rect;

fn line(text: &str, x: f32, y: f32) -> Line {
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

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|l| l.text.as_str()).collect()
}

#[test]
fn fragments_on_a_baseline_become_a_line() {
    let ocr = |text: &str, x: f32, y: f32| Line {
        confidence: 0.9,
        ..line(text, x, y)
    };
    let page = vec![
        ocr("the upper", 0.185, 0.2005),
        ocr("keeper", 0.1, 0.2),
        ocr("opens", 0.6, 0.2),
        ocr("gate", 0.268, 0.1995),
    ];
    let lines = reading_order(page);
    assert_eq!(texts(&lines), ["keeper", "the upper gate", "opens"]);
    assert!((lines[1].rect.right() - (0.268 + 4.0 * 0.0085)).abs() < 1e-4);
    let layer = reading_order(vec![
        line("lo", 0.1, 0.2),
        line("ck", 0.117, 0.2),
        line("gate", 0.142, 0.2),
    ]);
    assert_eq!(texts(&layer), ["lock gate"]);
}

#[test]
fn lines_all_in_one_place_are_bounded_too() {
    let page: Vec<Line> = (0..20_000)
        .map(|i| Line {
            rect: Rect::default(),
            ..line(&i.to_string(), 0.0, 0.0)
        })
        .collect();
    let started = std::time::Instant::now();
    assert!(reading_order(page).iter().all(|l| l.text.len() <= 2 * LONGEST));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn narrow_gutter_parts_lines_written_across_it() {
    let mut page = Vec::new();
    for i in 0..6_u8 {
        let y = 0.2 + 0.02 * f32::from(i);
        let left = line(&format!("a{i} is a line of the left column"), 0.1, y);
        let x = left.rect.right() + 1.3 * 0.0085;
        page.push(left);
        page.push(line(&format!("b{i} is a line of the right one"), x, y));
    }
    let one = reading_order(page[..2].to_vec());
    assert_eq!(
        texts(&one),
        ["a0 is a line of the left column b0 is a line of the right one"]
    );
    let starts: String = reading_order(page).iter().map(|line| &line.text[..2]).collect();
    assert_eq!(starts, "a0a1a2a3a4a5b0b1b2b3b4b5");
}
