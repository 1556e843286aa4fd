//! The checksum at the end of a file of compiled code.
//!
//! The checksum detects damage, not attacks: a user who can write to the folder controls this process anyway. So it must be
//! fast rather than hard to forge. A component that contains an interpreter has 40 MB of code. XXH3 runs at memory speed, while
//! SHA-256 would take longer than the rest of a cold start.

use std::io::{self, Read};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Length of the checksum.
const CHECKSUM_BYTES: usize = 16;

pub(super) fn compute_checksum(code: &[u8]) -> [u8; CHECKSUM_BYTES] {
    xxh3_128(code).to_le_bytes()
}

/// Whether a file of `length` bytes ends with the checksum of the bytes before it.
pub(super) fn has_valid_checksum(mut file: impl Read, length: u64) -> io::Result<bool> {
    let Some(code_bytes) = length.checked_sub(CHECKSUM_BYTES as u64) else {
        return Ok(false);
    };
    // Small enough to stay in the processor's cache until it is hashed.
    let mut buffer = vec![0; 64 << 10];
    let (mut sum, mut rest) = (Xxh3::new(), file.by_ref().take(code_bytes));
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => sum.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    let mut stored = [0; CHECKSUM_BYTES];
    file.read_exact(&mut stored)?;
    Ok(stored == sum.digest128().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_covers_every_byte() {
        let holds = |bytes: &[u8]| has_valid_checksum(bytes, bytes.len() as u64).unwrap_or(false);
        let code: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for code in [&code[..], b"code", b""] {
            let bytes = [code, &compute_checksum(code)].concat();
            assert!(holds(&bytes));
            for at in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(!holds(&damaged), "byte {at}");
            }
            assert!(!holds(&bytes[..bytes.len() - 1]));
        }
        assert!(!holds(b"short"));
    }
}
