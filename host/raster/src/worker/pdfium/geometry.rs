//! Boxes and affine transformations.

use pdfium_render::prelude::FS_MATRIX;

/// A box in page coordinates: points, y axis upward, before rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) left: f32,
    pub(crate) bottom: f32,
    pub(crate) right: f32,
    pub(crate) top: f32,
}

/// An affine transformation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix(pub(super) FS_MATRIX);

impl Matrix {
    pub(super) const IDENTITY: Self = Self(FS_MATRIX {
        a: 1.0,
        b: 0.0,
        c: 0.0,
        d: 1.0,
        e: 0.0,
        f: 0.0,
    });

    fn transform_point(&self, x: f32, y: f32) -> (f32, f32) {
        let m = &self.0;
        (m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f)
    }

    /// Returns the transformation that applies this one first and then `next`.
    pub(super) fn compose_with_next(&self, next: &Self) -> Self {
        let (m, n) = (&self.0, &next.0);
        let (e, f) = next.transform_point(m.e, m.f);
        Self(FS_MATRIX {
            a: m.a * n.a + m.b * n.c,
            b: m.a * n.b + m.b * n.d,
            c: m.c * n.a + m.d * n.c,
            d: m.c * n.b + m.d * n.d,
            e,
            f,
        })
    }

    /// Returns the bounds of the transformed box.
    pub(super) fn transform_bounds(&self, b: Bounds) -> Bounds {
        let corners = [
            self.transform_point(b.left, b.bottom),
            self.transform_point(b.right, b.bottom),
            self.transform_point(b.left, b.top),
            self.transform_point(b.right, b.top),
        ];
        let mut around = Bounds {
            left: f32::INFINITY,
            bottom: f32::INFINITY,
            right: f32::NEG_INFINITY,
            top: f32::NEG_INFINITY,
        };
        for (x, y) in corners {
            around.left = around.left.min(x);
            around.right = around.right.max(x);
            around.bottom = around.bottom.min(y);
            around.top = around.top.max(y);
        }
        around
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_form_is_placed_by_both_matrices() {
        let turned = Matrix(FS_MATRIX {
            a: 0.0,
            b: 1.0,
            c: -1.0,
            d: 0.0,
            e: 100.0,
            f: 0.0,
        });
        let doubled = Matrix(FS_MATRIX {
            a: 2.0,
            b: 0.0,
            c: 0.0,
            d: 2.0,
            e: 0.0,
            f: 10.0,
        });
        let unit = Bounds {
            left: 0.0,
            bottom: 0.0,
            right: 1.0,
            top: 3.0,
        };
        let placed = Bounds {
            left: 194.0,
            bottom: 10.0,
            right: 200.0,
            top: 12.0,
        };
        assert_eq!(turned.compose_with_next(&doubled).transform_bounds(unit), placed);
        assert_eq!(doubled.transform_bounds(turned.transform_bounds(unit)), placed);
        assert_eq!(Matrix::IDENTITY.transform_bounds(unit), unit);
    }
}
