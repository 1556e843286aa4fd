//! Extracts the boxes of text lines from the detector's probability map.
//!
//! The steps are those of differentiable binarization (Liao et al. 2020) as in PaddleOCR. Binarize the map and dilate it by one
//! pixel. Find the connected components. Compute the rotated rectangle of minimum area around each, with its mean probability
//! as score. Unclip the rectangle, which enlarges it, because the network is trained on shrunken text. A rectangle enlarged by
//! an offset is still a rectangle, so no polygon clipping is needed.
//!
//! One step is added. The minimum rectangle of a short component (a page number, a bullet) has an arbitrary angle. Such a box
//! gets the slope of the page, which is measured on the long lines.

use std::f32::consts::FRAC_PI_2;

/// A pixel above this probability is text.
const BINARIZATION_THRESHOLD: f32 = 0.3;

/// A component with a mean probability below this is dropped.
const MIN_BOX_SCORE: f32 = 0.5;

/// A rectangle grows on each side by this ratio times its area, divided by its circumference.
const UNCLIP_RATIO: f32 = 1.6;

/// Minimum side of a component, in pixels of the map.
const MIN_COMPONENT_SIDE: f32 = 3.0;

/// Maximum number of components that are processed in one map.
const MAX_COMPONENTS: usize = 3000;

/// A component with at least this ratio of its sides keeps its own slope.
const MIN_ASPECT_RATIO_FOR_OWN_SLOPE: f32 = 4.0;

/// A box with at least this ratio of height to width is a line that runs downward.
const MIN_ASPECT_RATIO_OF_VERTICAL_LINE: f32 = 1.5;

/// The box of a text line: a rotated rectangle, in pixels of its image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TextBox {
    /// The center.
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// Size along the line.
    pub(crate) width: f32,
    /// Size across the line.
    pub(crate) height: f32,
    /// Reading direction, in radians clockwise from the right.
    pub(crate) angle: f32,
}

impl TextBox {
    /// Returns the unit vectors along and across the line; the second is clockwise from the first.
    pub(crate) fn axes(&self) -> ([f32; 2], [f32; 2]) {
        let (sin, cos) = self.angle.sin_cos();
        ([cos, sin], [-sin, cos])
    }

    /// Returns the corners, starting at the top left of the first letter, clockwise in reading direction.
    pub(crate) fn corners(&self) -> [[f32; 2]; 4] {
        let ([ux, uy], [vx, vy]) = self.axes();
        [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)].map(|(a, b)| {
            let (a, b) = (a * self.width, b * self.height);
            [self.x + a * ux + b * vx, self.y + a * uy + b * vy]
        })
    }

    /// Returns the box with the opposite reading direction.
    pub(crate) fn reverse_reading_direction(&self) -> Self {
        Self {
            angle: self.angle + 2.0 * FRAC_PI_2,
            ..*self
        }
    }

    /// Returns whether the line runs down or up the page.
    pub(crate) fn is_reading_direction_vertical(&self) -> bool {
        self.angle.sin().abs() > 0.5
    }

    /// Converts the box from map coordinates to page coordinates.
    pub(crate) fn to_page_coordinates(self, x: f32, y: f32, scale: f32) -> Self {
        Self {
            x: x + self.x / scale,
            y: y + self.y / scale,
            width: self.width / scale,
            height: self.height / scale,
            angle: self.angle,
        }
    }
}

/// Returns the boxes of text lines in a probability map, which is stored row by row.
pub(crate) fn extract_text_boxes(map: &[f32], width: usize, height: usize) -> Vec<TextBox> {
    if width == 0 || map.len() < width * height {
        return Vec::new();
    }
    let mut found: Vec<(Vec<[f32; 2]>, TextBox)> = Vec::new();
    for hull in connected_component_hulls(map, width, height)
        .into_iter()
        .take(MAX_COMPONENTS)
    {
        let Some(fit) = min_area_rectangle(&hull) else {
            continue;
        };
        if fit.width.min(fit.height) >= MIN_COMPONENT_SIDE
            && mean_probability_in_box(map, width, height, &fit) >= MIN_BOX_SCORE
        {
            found.push((hull, fit));
        }
    }
    let slope = median_page_slope(found.iter().map(|(_, fit)| fit));
    found
        .into_iter()
        .map(|(hull, fit)| {
            let aspect_ratio = fit.width.max(fit.height) / fit.width.min(fit.height);
            let fit = if aspect_ratio < MIN_ASPECT_RATIO_FOR_OWN_SLOPE {
                bounding_rectangle_at_angle(&hull, slope)
            } else {
                fit
            };
            unclip_box(normalize_orientation(fit))
        })
        .filter(|fit| fit.width.min(fit.height) >= MIN_COMPONENT_SIDE + 2.0)
        .collect()
}

/// Enlarges a box to undo the shrinking of the training labels.
fn unclip_box(rectangle: TextBox) -> TextBox {
    let offset = UNCLIP_RATIO * rectangle.width * rectangle.height
        / (2.0 * (rectangle.width + rectangle.height)).max(f32::EPSILON);
    TextBox {
        width: rectangle.width + 2.0 * offset,
        height: rectangle.height + 2.0 * offset,
        ..rectangle
    }
}

/// Rotates the box by quarter turns so that the line reads to the right, or downward if the box is clearly higher than wide.
fn normalize_orientation(fit: TextBox) -> TextBox {
    let quarters = (fit.angle / FRAC_PI_2).round();
    let mut fit = TextBox {
        angle: fit.angle - quarters * FRAC_PI_2,
        ..fit
    };
    if quarters.rem_euclid(2.0) >= 0.5 {
        std::mem::swap(&mut fit.width, &mut fit.height);
    }
    if fit.height >= MIN_ASPECT_RATIO_OF_VERTICAL_LINE * fit.width {
        std::mem::swap(&mut fit.width, &mut fit.height);
        fit.angle += FRAC_PI_2;
    }
    fit
}

/// Returns the median slope of the long boxes, weighted by length, within ± 45°; 0 if there is none.
fn median_page_slope<'a>(boxes: impl Iterator<Item = &'a TextBox>) -> f32 {
    let mut slopes: Vec<(f32, f32)> = boxes
        .filter(|b| b.width.max(b.height) >= MIN_ASPECT_RATIO_FOR_OWN_SLOPE * b.width.min(b.height))
        .map(|b| {
            let quarters = (b.angle / FRAC_PI_2).round();
            (b.angle - quarters * FRAC_PI_2, b.width.max(b.height))
        })
        .collect();
    slopes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = slopes.iter().map(|s| s.1).sum::<f32>() / 2.0;
    let mut sum = 0.0;
    slopes
        .iter()
        .find(|(_, length)| {
            sum += length;
            sum >= half
        })
        .map_or(0.0, |s| s.0)
}

/// A run of text pixels in one row.
#[derive(Clone, Copy)]
struct PixelRun {
    start: usize,
    end: usize,
    label: usize,
}

/// Returns the convex hulls of the connected components, after dilating each pixel by one to the right and down.
fn connected_component_hulls(map: &[f32], width: usize, height: usize) -> Vec<Vec<[f32; 2]>> {
    let mut parents: Vec<usize> = Vec::new();
    let mut runs: Vec<(usize, PixelRun)> = Vec::new();
    let (mut above, mut mask, mut last) = (Vec::<PixelRun>::new(), vec![0u8; width], vec![0u8; width]);
    for (y, row) in map.chunks_exact(width).take(height).enumerate() {
        for (bit, p) in mask.iter_mut().zip(row) {
            *bit = u8::from(*p > BINARIZATION_THRESHOLD);
        }
        let mut current_runs: Vec<PixelRun> = Vec::new();
        let mut before = 0u8;
        for (x, (now, up)) in mask.iter().zip(&last).enumerate() {
            let now = now | up;
            if now | before != 0 {
                match current_runs.last_mut() {
                    Some(run) if run.end == x => run.end = x + 1,
                    _ => current_runs.push(PixelRun {
                        start: x,
                        end: x + 1,
                        label: usize::MAX,
                    }),
                }
            }
            before = now;
        }
        label_connected_runs(&mut current_runs, &above, &mut parents);
        runs.extend(current_runs.iter().map(|run| (y, *run)));
        above = current_runs;
        std::mem::swap(&mut mask, &mut last);
    }
    let mut points: Vec<Vec<[f32; 2]>> = vec![Vec::new(); parents.len()];
    for (y, run) in runs {
        let root = find_root_label(&mut parents, run.label);
        if let Some(points) = points.get_mut(root) {
            points.push([run.start as f32, y as f32]);
            points.push([(run.end - 1) as f32, y as f32]);
        }
    }
    points.retain(|p| !p.is_empty());
    points.into_iter().map(convex_hull).collect()
}

/// Labels the runs of a row by the runs above that they touch, also diagonally. Labels that meet are merged.
fn label_connected_runs(current_runs: &mut [PixelRun], above: &[PixelRun], parents: &mut Vec<usize>) {
    let mut from = 0;
    for run in current_runs {
        // A run above that ends before this run starts cannot touch a later run either.
        from += above.iter().skip(from).take_while(|a| a.end < run.start).count();
        for touching in above.iter().skip(from).take_while(|a| a.start <= run.end) {
            let root = find_root_label(parents, touching.label);
            if run.label == usize::MAX {
                run.label = root;
            } else {
                let own = find_root_label(parents, run.label);
                if let Some(parent) = parents.get_mut(root.max(own)) {
                    *parent = root.min(own);
                }
                run.label = root.min(own);
            }
        }
        if run.label == usize::MAX {
            run.label = parents.len();
            parents.push(run.label);
        }
    }
}

fn find_root_label(parents: &mut [usize], mut label: usize) -> usize {
    while let Some(parent) = parents.get(label).copied()
        && parent != label
    {
        let grandparent = parents.get(parent).copied().unwrap_or(parent);
        if let Some(p) = parents.get_mut(label) {
            *p = grandparent;
        }
        label = grandparent;
    }
    label
}

fn cross_product(o: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - o[0]).mul_add(b[1] - o[1], -((a[1] - o[1]) * (b[0] - o[0])))
}

/// Computes the convex hull with Andrew's monotone chain.
fn convex_hull(mut points: Vec<[f32; 2]>) -> Vec<[f32; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let half = |points: &mut dyn Iterator<Item = [f32; 2]>| {
        let mut hull: Vec<[f32; 2]> = Vec::new();
        for point in points {
            while let [.., o, a] = hull.as_slice()
                && cross_product(*o, *a, point) <= 0.0
            {
                hull.pop();
            }
            hull.push(point);
        }
        hull.pop();
        hull
    };
    let mut hull = half(&mut points.iter().copied());
    hull.extend(half(&mut points.iter().rev().copied()));
    hull
}

/// Returns the bounding rectangle of the points at this angle.
fn bounding_rectangle_at_angle(points: &[[f32; 2]], angle: f32) -> TextBox {
    let (sin, cos) = angle.sin_cos();
    let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
    for [x, y] in points {
        let rotated = [x * cos + y * sin, y * cos - x * sin];
        for ((low, high), t) in low.iter_mut().zip(&mut high).zip(rotated) {
            *low = low.min(t);
            *high = high.max(t);
        }
    }
    let (a, b) = ((low[0] + high[0]) / 2.0, (low[1] + high[1]) / 2.0);
    TextBox {
        x: a * cos - b * sin,
        y: a * sin + b * cos,
        width: high[0] - low[0],
        height: high[1] - low[1],
        angle,
    }
}

/// Returns the rectangle of minimum area around a hull. One of its sides lies on a side of the hull (Freeman, Shapira 1975).
fn min_area_rectangle(hull: &[[f32; 2]]) -> Option<TextBox> {
    let next = hull.iter().cycle().skip(1);
    hull.iter()
        .zip(next)
        .filter(|(a, b)| a != b)
        .map(|(a, b)| bounding_rectangle_at_angle(hull, (b[1] - a[1]).atan2(b[0] - a[0])))
        .min_by(|a, b| (a.width * a.height).total_cmp(&(b.width * b.height)))
}

/// Returns the mean probability inside a box.
fn mean_probability_in_box(map: &[f32], width: usize, height: usize, fit: &TextBox) -> f32 {
    let corners = fit.corners();
    let ys = corners.map(|c| c[1]);
    let top = ys.into_iter().fold(f32::INFINITY, f32::min).floor().max(0.0);
    let bottom = ys.into_iter().fold(f32::NEG_INFINITY, f32::max).ceil();
    let (mut sum, mut count) = (0.0, 0usize);
    for y in top as usize..=(bottom.max(0.0) as usize).min(height - 1) {
        let Some((from, to)) = row_crossings_of_box(&corners, y as f32) else {
            continue;
        };
        let from = (from.round().max(0.0) as usize).min(width - 1);
        let to = (to.round().max(0.0) as usize).min(width - 1);
        let row = map.get(y * width + from..=y * width + to).unwrap_or(&[]);
        sum += row.iter().sum::<f32>();
        count += row.len();
    }
    if count == 0 { 0.0 } else { sum / count as f32 }
}

/// Returns where the horizontal line at `y` enters and leaves a box.
fn row_crossings_of_box(corners: &[[f32; 2]; 4], y: f32) -> Option<(f32, f32)> {
    let next = corners.iter().cycle().skip(1);
    let crossings = corners.iter().zip(next).filter_map(|(a, b)| {
        let (low, high) = if a[1] <= b[1] { (a, b) } else { (b, a) };
        // Rows are pixels: a row that the outline only touches still counts.
        if y < low[1] - 0.5 || y > high[1] + 0.5 {
            return None;
        }
        if high[1] <= low[1] {
            return Some((a[0].min(b[0]), a[0].max(b[0])));
        }
        let t = ((y - low[1]) / (high[1] - low[1])).clamp(0.0, 1.0);
        let x = low[0] + t * (high[0] - low[0]);
        Some((x, x))
    });
    crossings.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with one filled rectangle.
    fn probability_map_of_box(width: usize, height: usize, fit: TextBox) -> Vec<f32> {
        let ([ux, uy], [vx, vy]) = fit.axes();
        (0..width * height)
            .map(|n| {
                let (x, y) = ((n % width) as f32 - fit.x, (n / width) as f32 - fit.y);
                let inside =
                    (x * ux + y * uy).abs() <= fit.width / 2.0 && (x * vx + y * vy).abs() <= fit.height / 2.0;
                if inside { 0.9 } else { 0.05 }
            })
            .collect()
    }

    const HORIZONTAL_LINE: TextBox = TextBox {
        x: 150.0,
        y: 100.0,
        width: 200.0,
        height: 14.0,
        angle: 0.0,
    };

    #[test]
    fn rotated_line_keeps_its_angle_and_size() {
        for degrees in [-20.0f32, -3.0, -0.6, 0.0, 0.6, 5.0, 30.0] {
            let line = TextBox {
                angle: degrees.to_radians(),
                ..HORIZONTAL_LINE
            };
            let found = extract_text_boxes(&probability_map_of_box(300, 200, line), 300, 200);
            assert_eq!(found.len(), 1, "{degrees}");
            let wanted = unclip_box(line);
            assert!(
                (found[0].angle - line.angle).abs() < 0.006,
                "{degrees}: {found:?}"
            );
            assert!((found[0].x - 150.5).abs() < 1.0 && (found[0].y - 100.5).abs() < 1.0);
            assert!(
                (found[0].width - wanted.width).abs() < 4.0,
                "{found:?} {wanted:?}"
            );
            assert!(
                (found[0].height - wanted.height).abs() < 4.0,
                "{found:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn vertical_line_reads_downward() {
        let line = TextBox {
            angle: FRAC_PI_2,
            ..HORIZONTAL_LINE
        };
        let found = extract_text_boxes(
            &probability_map_of_box(300, 300, TextBox { y: 150.0, ..line }),
            300,
            300,
        );
        assert!(found[0].is_reading_direction_vertical());
        assert!(found[0].width > 200.0 && found[0].height < 60.0, "{found:?}");
        assert!((found[0].angle - FRAC_PI_2).abs() < 0.01);
        assert!(
            !found[0]
                .to_page_coordinates(0.0, 0.0, 1.0)
                .reverse_reading_direction()
                .axes()
                .0[1]
                .is_sign_positive()
        );
    }

    #[test]
    fn short_component_takes_the_slope_of_the_page() {
        let slope = 3f32.to_radians();
        let mut both = probability_map_of_box(
            300,
            200,
            TextBox {
                angle: slope,
                y: 60.0,
                ..HORIZONTAL_LINE
            },
        );
        // A diamond, whose minimum rectangle stands on a corner.
        for y in 0..17isize {
            for x in 0..17isize {
                if (x - 8).abs() + (y - 8).abs() <= 8 {
                    both[(140 + y as usize) * 300 + 100 + x as usize] = 0.9;
                }
            }
        }
        let found = extract_text_boxes(&both, 300, 200);
        assert_eq!(found.len(), 2);
        for one in found {
            assert!((one.angle - slope).abs() < 0.02, "{one:?}");
        }
    }

    #[test]
    fn components_one_pixel_apart_merge_and_faint_ones_are_dropped() {
        let mut row = vec![0.0; 100 * 30];
        for y in 10..20 {
            row[y * 100 + 10..y * 100 + 30].fill(0.9);
            row[y * 100 + 31..y * 100 + 60].fill(0.9);
            row[y * 100 + 64..y * 100 + 90].fill(0.35);
        }
        let found = extract_text_boxes(&row, 100, 30);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!((found[0].x - 35.0).abs() <= 1.0);
    }

    #[test]
    fn components_that_meet_in_a_later_row_merge() {
        // Two legs that join at the bottom, like a U.
        let mut shape = vec![0.0; 40 * 40];
        for y in 5..35 {
            let row = &mut shape[y * 40..][..40];
            row[5..15].fill(0.9);
            row[25..35].fill(0.9);
            if y > 25 {
                row[5..35].fill(0.9);
            }
        }
        assert_eq!(connected_component_hulls(&shape, 40, 40).len(), 1);
    }

    #[test]
    fn empty_map_has_no_boxes() {
        assert!(extract_text_boxes(&[0.0; 64], 8, 8).is_empty());
        assert!(extract_text_boxes(&[], 0, 0).is_empty());
        assert!(extract_text_boxes(&[0.9; 3], 8, 8).is_empty());
    }
}
