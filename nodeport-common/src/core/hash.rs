//! The hash of a flow that picks its slot: seeded, the same on every node of a cluster.

/// Mixes one word into a hash (the round of MurmurHash3, public domain).
#[inline(always)]
pub const fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// Ends a hash: every bit of it depends on every bit that went in (MurmurHash3's finalizer).
#[inline(always)]
pub const fn finish(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// Odd multipliers: the golden ratio's bits, and those that go with it in well-known mixers.
const FACTORS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xff51_afd7_ed55_8ccd,
];

/// The share of word `index` (below 5) in a hash. Shares are added up: a processor multiplies all
/// words at the same time.
#[inline(always)]
pub const fn share64(word: u64, seed: u64, index: usize) -> u64 {
    (word ^ seed).wrapping_mul(FACTORS[index])
}

/// Ends such a hash: its upper and its lower half are as good as two.
#[inline(always)]
pub const fn finish64(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(FACTORS[3]);
    hash ^ (hash >> 29)
}

/// Maps a hash evenly onto `0..len` without a division (Lemire's multiply-shift).
#[inline(always)]
pub const fn index(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}
