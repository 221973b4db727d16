//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are taken over 16-bit words as they lie in memory. A ones'-complement sum does not
//! depend on the byte order, so no word is ever swapped, as long as a sum and the field it goes
//! into are read and written in the same way.

use super::env::ChecksumChange;

/// Folds a sum into 16 bits, carries added in.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Folds a sum of 32-bit words into 16 bits.
#[inline(always)]
pub const fn fold_wide(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    fold(sum as u32)
}

/// Sum of 32-bit words, which folds to the same as that of their 16-bit halves.
#[inline(always)]
pub fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut total = 0;
    for word in words {
        total += *word as u64;
    }
    total
}

/// The difference that replacing `old` by `new` makes: `~m + m'`, folded.
#[inline(always)]
pub fn difference<const N: usize>(old: &[u32; N], new: &[u32; N]) -> u16 {
    let mut total = sum(new);
    for word in old {
        total += !*word as u64;
    }
    fold_wide(total)
}

/// The sum of two folded differences, folded.
#[inline(always)]
pub const fn combine(a: u16, b: u16) -> u16 {
    fold(a as u32 + b as u32)
}

/// The difference that undoes `diff`.
#[inline(always)]
pub const fn inverse(diff: u16) -> u16 {
    !diff
}

/// A checksum field after `diff` (RFC 1624, equation 3: `~(~HC + diff)`).
#[inline(always)]
pub const fn update(field: u16, diff: u16) -> u16 {
    !fold((!field) as u32 + diff as u32)
}

/// The same for UDP: zero means "no checksum" and stays, a computed zero is sent as 0xffff
/// (RFC 768).
#[inline(always)]
pub const fn update_udp(field: u16, diff: u16) -> u16 {
    if field == 0 {
        return 0;
    }
    match update(field, diff) {
        0 => 0xffff,
        value => value,
    }
}

/// The difference that decrementing an IPv4 TTL makes to the header checksum: the word
/// `TTL, protocol` falls by 0x0100 as it is on the wire.
pub const TTL_DECREMENT: u16 = !u16::from_ne_bytes([1, 0]);

/// Whether a folded sum is zero, which is written in two ways.
#[inline(always)]
pub const fn is_zero(sum: u16) -> bool {
    sum == 0 || sum == 0xffff
}

/// Whether two folded sums are the same number.
#[inline(always)]
const fn is_same(a: u16, b: u16) -> bool {
    a == b || is_zero(a) && is_zero(b)
}

/// The field after the ports' difference as well, if it is to be written: `old` was in it, and `new` is
/// after the kernel has taken in `address_diff`, which is not zero ([`is_zero`]): so one question to
/// the kernel is enough, which costs more than all else about the checksum.
///
/// Where the network card finishes the checksum, the field holds the sum of the pseudo-header, not its
/// complement, and without the ports. So the kernel has added the difference to it, and has
/// subtracted it from a finished checksum: unless it is zero, the two are never the same, since
/// twice a number is zero modulo 0xffff only if the number is.
#[inline(always)]
pub fn take_in_ports(old: u16, new: u16, change: ChecksumChange) -> Option<u16> {
    let step = |field, diff| match change.udp {
        true => update_udp(field, diff),
        false => update(field, diff),
    };
    is_same(new, step(old, change.address_diff)).then(|| step(new, change.port_diff))
}
