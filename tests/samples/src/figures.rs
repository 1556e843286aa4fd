//! The survey's figures: two charts, a map and a sonar image.

use crate::fonts::Typeface;
use crate::pdf_document::{Image, Page};
use crate::typesetter::FigureFrame;

/// Draws the figure `name`.
pub(crate) fn draw_figure(page: &mut Page, name: &str, frame: FigureFrame) {
    match name {
        "levels" => draw_level_chart(page, frame),
        "fish" => draw_fish_chart(page, frame),
        "depth" => page.draw_image(0, frame.x, frame.y, frame.width, frame.height),
        _ => draw_river_map(page, frame),
    }
}

/// Draws the axes of a chart. Returns the part of the frame that is inside the axis labels.
fn draw_axes(page: &mut Page, frame: FigureFrame) -> FigureFrame {
    let inner = FigureFrame {
        x: frame.x + 28.0,
        y: frame.y + 18.0,
        width: frame.width - 34.0,
        height: frame.height - 26.0,
    };
    page.content
        .set_line_width(0.8)
        .move_to(inner.x, inner.y + inner.height)
        .line_to(inner.x, inner.y)
        .line_to(inner.x + inner.width, inner.y)
        .stroke();
    inner
}

fn draw_label(page: &mut Page, right: f32, y: f32, text: &str) {
    let x = right - Typeface::Sans.text_width(text, 7.0);
    page.draw_text(Typeface::Sans, 7.0, x, y, text);
}

fn draw_level_chart(page: &mut Page, frame: FigureFrame) {
    const MONTHS: [&str; 12] = ["J", "F", "M", "A", "M", "J", "J", "A", "S", "O", "N", "D"];
    const OLD: [f32; 12] = [
        248.0, 252.0, 263.0, 258.0, 241.0, 226.0, 217.0, 209.0, 208.0, 214.0, 227.0, 239.0,
    ];
    const NEW: [f32; 12] = [
        246.0, 250.0, 261.0, 251.0, 229.0, 202.0, 186.0, 176.0, 181.0, 203.0, 222.0, 238.0,
    ];
    let inner = draw_axes(page, frame);
    let x = |month: usize| inner.x + (month as f32 + 0.5) / 12.0 * inner.width;
    let y = |level: f32| inner.y + (level - 160.0) / 120.0 * inner.height;
    for level in [160, 190, 220, 250, 280_u16] {
        let at = y(f32::from(level));
        page.content
            .set_line_width(0.4)
            .set_stroke_gray(0.75)
            .move_to(inner.x, at)
            .line_to(inner.x + inner.width, at)
            .stroke()
            .set_stroke_gray(0.0);
        draw_label(page, inner.x - 4.0, at - 2.5, &level.to_string());
    }
    for (i, month) in MONTHS.iter().enumerate() {
        draw_label(page, x(i) + 2.0, inner.y - 10.0, month);
    }
    for (series, dashed) in [(OLD, true), (NEW, false)] {
        page.content.save_state().set_line_width(1.3);
        if dashed {
            page.content.set_dash_pattern([4.0, 3.0], 0.0);
        }
        for (i, level) in series.into_iter().enumerate() {
            if i == 0 {
                page.content.move_to(x(i), y(level));
            } else {
                page.content.line_to(x(i), y(level));
            }
        }
        page.content.stroke().restore_state();
    }
}

fn draw_fish_chart(page: &mut Page, frame: FigureFrame) {
    const COUNTS: [(&str, f32, f32); 5] = [
        ("nase", 0.84, 11.26),
        ("barbel", 1.45, 2.904),
        ("bleak", 5.1, 5.3),
        ("chub", 3.7, 3.6),
        ("dace", 1.2, 2.1),
    ];
    let inner = draw_axes(page, frame);
    let y = |count: f32| count / 12.0 * inner.height;
    for count in [0, 3, 6, 9, 12_u8] {
        draw_label(
            page,
            inner.x - 4.0,
            inner.y + y(f32::from(count)) - 2.5,
            &count.to_string(),
        );
    }
    let step = inner.width / 5.0;
    for (i, (name, old, new)) in COUNTS.into_iter().enumerate() {
        let x = inner.x + step * i as f32;
        page.content
            .set_fill_gray(0.75)
            .rect(x + 7.0, inner.y, 12.0, y(old))
            .fill_nonzero();
        page.content
            .set_fill_gray(0.25)
            .rect(x + 20.0, inner.y, 12.0, y(new))
            .fill_nonzero()
            .set_fill_gray(0.0);
        draw_label(page, x + 31.0, inner.y - 10.0, name);
    }
    let top = inner.y + inner.height - 8.0;
    for (gray, name, down) in [(0.75, "2003", 0.0), (0.25, "2024", 11.0)] {
        let x = inner.x + inner.width - 34.0;
        page.content
            .set_fill_gray(gray)
            .rect(x, top - down, 8.0, 7.0)
            .fill_nonzero()
            .set_fill_gray(0.0);
        page.draw_text(Typeface::Sans, 7.0, x + 11.0, top - down + 1.0, name);
    }
}

fn draw_river_map(page: &mut Page, frame: FigureFrame) {
    let at = |x: f32, y: f32| (frame.x + x * frame.width, frame.y + y * frame.height);
    page.content
        .save_state()
        .set_line_width(0.6)
        .rect(frame.x, frame.y, frame.width, frame.height)
        .stroke();
    page.content.set_line_width(4.0).set_stroke_rgb(0.35, 0.55, 0.8);
    let curve = |page: &mut Page, points: [(f32, f32); 4]| {
        let [a, b, c, d] = points.map(|(x, y)| at(x, y));
        page.content
            .move_to(a.0, a.1)
            .cubic_to(b.0, b.1, c.0, c.1, d.0, d.1)
            .stroke();
    };
    curve(page, [(0.02, 0.85), (0.25, 0.95), (0.25, 0.45), (0.48, 0.5)]);
    curve(page, [(0.48, 0.5), (0.7, 0.55), (0.7, 0.15), (0.98, 0.2)]);
    page.content.set_line_width(1.8);
    curve(page, [(0.4, 0.03), (0.42, 0.2), (0.52, 0.3), (0.55, 0.49)]);
    page.content.restore_state();
    for (x, y, kilometre) in [
        (0.12, 0.87, 12),
        (0.34, 0.58, 31),
        (0.62, 0.47, 47),
        (0.85, 0.22, 58_u8),
    ] {
        let (x, y) = at(x, y);
        page.content
            .set_fill_gray(1.0)
            .set_line_width(1.0)
            .rect(x - 3.5, y - 3.5, 7.0, 7.0)
            .fill_nonzero_and_stroke();
        page.content.set_fill_gray(0.0);
        page.draw_text(Typeface::Sans, 7.0, x + 6.0, y + 5.0, &format!("km {kilometre}"));
    }
    let (x, y) = at(0.655, 0.4);
    page.content
        .set_line_width(3.0)
        .move_to(x - 7.0, y - 7.0)
        .line_to(x + 7.0, y + 7.0)
        .stroke();
    for (x, y, name) in [
        (0.02, 0.64, "Tiefen gorge"),
        (0.7, 0.38, "Hallbrück"),
        (0.2, 0.1, "Gries brook"),
        (0.83, 0.09, "Sennfeld"),
    ] {
        let (x, y) = at(x, y);
        page.draw_text(Typeface::SerifItalic, 8.5, x, y, name);
    }
}

/// Generates a sonar image of the river bed: a light tongue on a dark bed, with the usual scan lines. It uses integers only, so that
/// the image is the same on every machine.
pub(crate) fn sonar_image() -> Image {
    let (width, height) = (240_u32, 172_u32);
    let mut noise = 0x2545_f491_u32;
    let mut bytes = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let (x, y) = (i64::from(x), i64::from(y));
            // An ellipse for the tongue, a slope for the bed.
            let (dx, dy) = (x - 70 - y / 4, y - 90);
            let tongue = 150 - (dx * dx / 18 + dy * dy / 32);
            let bed = 95 - x / 4 + y / 8;
            let lines = if y % 12 == 0 { -14 } else { 0 };
            let value = bed + tongue.max(0) * 9 / 10 + lines + i64::from(noise % 17) - 8;
            bytes.push(u8::try_from(value.clamp(0, 255)).unwrap_or(0));
        }
    }
    Image {
        width,
        height,
        is_color: false,
        is_jpeg: false,
        bytes,
    }
}
