//! Incremental checksums are what summing from scratch gives.

use nodeport_common::core::checksum::{
    TTL_DECREMENT, combine, difference, fold, fold_wide, inverse, is_zero, take_in_ports, update,
    update_udp,
};
use nodeport_common::core::env::ChecksumChange;
use proptest::prelude::*;

/// The checksum of these words, from scratch, by the definition in RFC 1071: add, and add each
/// carry back in at once.
fn checksum(words: &[u16]) -> u16 {
    let add = |sum: u16, word: &u16| {
        let (sum, carry) = sum.overflowing_add(*word);
        sum + u16::from(carry)
    };
    !words.iter().fold(0, add)
}

/// The word of 32 bits whose halves in memory are these.
fn wide(a: u16, b: u16) -> u32 {
    u32::from(a) | u32::from(b) << 16
}

#[test]
fn every_change_of_one_word_updates_every_checksum() {
    // Exhaustive in the old word and in the new one, each against words that reach the corners.
    let corners = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1234];
    for word in 0..=u16::MAX {
        for other in corners {
            for rest in corners {
                // The pseudo-header's protocol is never 0, so no real sum is of zeros alone.
                for (old, new) in [(word, other), (other, word)] {
                    let diff = difference(&[wide(old, 0)], &[wide(new, 0)]);
                    let before = checksum(&[old, rest, 6]);
                    assert_eq!(
                        update(before, diff),
                        checksum(&[new, rest, 6]),
                        "{old:#x} -> {new:#x} beside {rest:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_udp_checksum_stays_nonzero_or_none() {
    let diffs = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1234];
    for field in 0..=u16::MAX {
        for diff in diffs {
            let updated = update_udp(field, diff);
            assert_eq!(updated == 0, field == 0, "{field:#x} + {diff:#x}");
            // What was right is right: the two zeros are one to whoever sums.
            let plain = update(field, diff);
            let same = updated == plain || (updated == 0xffff && plain == 0);
            assert!(field == 0 || same, "{field:#x} + {diff:#x}: {updated:#x}, not {plain:#x}");
        }
    }
}

#[test]
fn every_checksum_comes_back_by_the_inverse() {
    for field in 0..=u16::MAX {
        for diff in (0..=u16::MAX).step_by(257) {
            let back = update(update(field, diff), inverse(diff));
            // 0xffff is no checksum of anything that is not all zero; it comes back as the other
            // zero.
            let expected = if field == 0xffff { 0 } else { field };
            assert!(back == expected || back == field, "{field:#x}, {diff:#x}: {back:#x}");
        }
    }
}

#[test]
fn every_ttl_counts_down() {
    for ttl in 1..=u8::MAX {
        for protocol in [1, 6, 17, 255] {
            for rest in [0, 1, 0x7fff, 0xfffe, 0xffff] {
                let word = |ttl| u16::from_ne_bytes([ttl, protocol]);
                let before = checksum(&[word(ttl), rest, 0x45]);
                let after = checksum(&[word(ttl - 1), rest, 0x45]);
                assert_eq!(update(before, TTL_DECREMENT), after, "{ttl} {protocol} {rest:#x}");
            }
        }
    }
}

#[test]
fn folding_keeps_the_sum() {
    for low in (0..=u16::MAX).step_by(17) {
        for high in (0..=u16::MAX).step_by(4099) {
            assert_eq!(fold(wide(low, high)), !checksum(&[low, high]));
        }
    }
}

proptest! {
    #[test]
    fn words_of_an_address_and_a_port_update(
        old in any::<[u16; 10]>(), new in any::<[u16; 10]>(), rest in any::<[u16; 5]>(),
    ) {
        let pairs = |words: &[u16; 10]| -> [u32; 5] {
            core::array::from_fn(|index| wide(words[2 * index], words[2 * index + 1]))
        };
        let diff = difference(&pairs(&old), &pairs(&new));
        let whole = |words: &[u16]| checksum(&[words, &rest, &[17]].concat());
        prop_assert_eq!(update(whole(&old), diff), whole(&new));
    }

    #[test]
    fn two_differences_combine(a in any::<[u32; 2]>(), b in any::<[u32; 2]>(), field: u16) {
        let both = difference(&a, &b);
        let each = combine(difference(&[a[0]], &[b[0]]), difference(&[a[1]], &[b[1]]));
        prop_assert_eq!(update(field, both), update(field, each));
    }

    #[test]
    fn wide_sums_fold_as_their_halves(words in prop::collection::vec(any::<[u16; 2]>(), 0..300)) {
        let total: u64 = words.iter().map(|[a, b]| u64::from(wide(*a, *b))).sum();
        let halves: Vec<u16> = words.concat();
        prop_assert_eq!(fold_wide(total), !checksum(&halves));
    }
}

proptest! {
    /// The kernel is asked about the addresses alone; what it does with a field that is finished and
    /// with one that the card finishes tells them apart.
    #[test]
    fn one_question_to_the_kernel_is_enough(
        old in corner(), address_diff in corner(), port_diff in corner(), udp in any::<bool>(),
    ) {
        let change = ChecksumChange { address_diff, port_diff, udp };
        let step = |field, diff| if udp { update_udp(field, diff) } else { update(field, diff) };
        if is_zero(address_diff) {
            prop_assert!(matches!(address_diff, 0 | 0xffff));
            return Ok(());
        }
        // Finished: the kernel may write a sum of zero in either way.
        let new = step(old, address_diff);
        for new in [new, if new == 0 && !udp { 0xffff } else { new }] {
            let written = take_in_ports(old, new, change);
            prop_assert_eq!(written, Some(step(new, port_diff)), "finished");
        }
        // Not finished: the ports are the card's business.
        if !udp || old != 0 {
            let new = combine(old, address_diff);
            prop_assert_eq!(take_in_ports(old, new, change), None, "left to the card");
        }
    }
}

/// Any word, and often one of those at which sums carry.
fn corner() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), prop::sample::select(vec![0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff])]
}
