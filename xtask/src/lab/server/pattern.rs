//! Bytes that both ends know: lost, doubled or exchanged pieces change their hash.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

const BLOCK: usize = 64 * 1024;

/// The first N bytes of an endless pattern, block by block; each block begins with its number.
#[derive(Debug)]
pub struct Pattern {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Pattern {
    /// The first `count` bytes.
    #[must_use]
    pub fn new(count: u64) -> Self {
        // 251 is prime, so that no piece of a power of two bytes equals the next one.
        let block = (0..BLOCK).map(|index| (index % 251) as u8).collect();
        Self { block, number: 0, left: count }
    }

    /// The next piece; `None` after the last.
    pub fn next_block(&mut self) -> Option<&[u8]> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK);
        self.block[..8].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        self.left -= length as u64;
        (length > 0).then(|| &self.block[..length])
    }
}

/// The hash of the pattern's first `count` bytes, as `sha256sum` prints it.
#[must_use]
pub fn sha256(count: u64) -> String {
    let mut pattern = Pattern::new(count);
    let mut hash = Sha256::new();
    while let Some(block) = pattern.next_block() {
        hash.update(block);
    }
    hex(&hash.finalize())
}

pub(in crate::lab) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: u64) -> Vec<u8> {
        let mut pattern = Pattern::new(count);
        let mut all = Vec::new();
        while let Some(block) = pattern.next_block() {
            all.extend_from_slice(block);
        }
        all
    }

    #[test]
    fn it_has_the_length_asked_for() {
        for count in [0, 1, 8, 65_535, 65_536, 65_537, 200_000] {
            assert_eq!(bytes(count).len() as u64, count);
        }
    }

    #[test]
    fn blocks_differ_and_short_ones_are_beginnings() {
        let all = bytes(3 * 65_536);
        assert_ne!(all[..65_536], all[65_536..131_072]);
        assert_eq!(bytes(70_000), all[..70_000]);
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        assert_eq!(sha256(100_000), hex(&Sha256::digest(bytes(100_000))));
        assert_ne!(sha256(100_000), sha256(100_001));
    }
}
