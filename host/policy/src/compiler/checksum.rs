//! The last bytes of a file of compiled code: what the rest must come to.
//!
//! It finds damage, not malice: whoever can write to the folder owns this process anyway. So it need not be hard to forge
//! but has to be quick, since a component with an interpreter in it has 40 MB of code: XXH3 goes at the speed of memory,
//! where SHA-256 would take longer than all the rest of a cold start together.

use std::io::{self, Read};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Its length.
const BYTES: usize = 16;

/// That of some code.
pub(super) fn of(code: &[u8]) -> [u8; BYTES] {
    xxh3_128(code).to_le_bytes()
}

/// Whether a file of so many bytes ends with the checksum of what is before.
pub(super) fn holds(mut file: impl Read, length: u64) -> io::Result<bool> {
    let Some(code) = length.checked_sub(BYTES as u64) else {
        return Ok(false);
    };
    // Small enough to stay in the cache between being read and being looked at.
    let mut piece = vec![0; 64 << 10];
    let (mut sum, mut rest) = (Xxh3::new(), file.by_ref().take(code));
    loop {
        match rest.read(&mut piece)? {
            0 => break,
            count => sum.update(piece.get(..count).unwrap_or_default()),
        }
    }
    let mut told = [0; BYTES];
    file.read_exact(&mut told)?;
    Ok(told == sum.digest128().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_every_byte() {
        let holds = |bytes: &[u8]| holds(bytes, bytes.len() as u64).unwrap_or(false);
        let code: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for code in [&code[..], b"code", b""] {
            let bytes = [code, &of(code)].concat();
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
