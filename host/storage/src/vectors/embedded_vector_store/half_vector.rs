//! Vectors of unit length as 16-bit floating-point numbers, which halves their size. A component changes by at most 2⁻¹¹ of its value,
//! and one below 0.00006 by at most 2⁻²⁵.

use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};

/// Encodes a vector after bringing it to unit length. A vector of zeros stays.
pub(super) fn encode(vector: &[f32]) -> Vec<u8> {
    // With 64 bits, because the squares of large components would be infinite.
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let scale = if length > 0.0 { length.recip() } else { 1.0 };
    vector
        .iter()
        .flat_map(|x| half::f16::from_f64(f64::from(*x) * scale).to_le_bytes())
        .collect()
}

/// Decodes vectors into a buffer that it reuses.
#[derive(Default)]
pub(super) struct Decoder {
    bits: Vec<u16>,
    values: Vec<f32>,
}

impl Decoder {
    pub(super) fn decode(&mut self, bytes: &[u8]) -> &[f32] {
        self.bits.clear();
        let pairs = bytes.as_chunks::<2>().0;
        self.bits
            .extend(pairs.iter().map(|pair| u16::from_le_bytes(*pair)));
        self.values.resize(self.bits.len(), 0.0);
        let halves: &[half::f16] = self.bits.reinterpret_cast();
        halves.convert_to_f32_slice(&mut self.values);
        &self.values
    }
}

/// Returns the scalar product.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums, so that the compiler adds them with one instruction.
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_keep_their_direction() {
        let vector: Vec<f32> = (0_u8..27).map(|n| f32::from(n) - 9.0).collect();
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(&encode(&vector)).to_vec();
        let length = dot(&vector, &vector).sqrt();
        assert!((dot(&decoded, &decoded) - 1.0).abs() < 1e-3);
        for (decoded, exact) in decoded.iter().zip(&vector) {
            assert!((decoded - exact / length).abs() <= (exact / length).abs() / 2048.0);
        }
        assert_eq!(decoder.decode(&encode(&[0.0, 0.0])), [0.0, 0.0]);
        assert_eq!(
            decoder.decode(&encode(&[3e37, 4e37])),
            [0.6, 0.8].map(|x| half::f16::from_f64(x).to_f32())
        );
        assert!(decoder.decode(&[]).is_empty());
    }
}
