//! Where keys may be.

use nodeport_common::abi::SLOTS_OF_LINE;
use nodeport_common::core::table::slot::{ENTRY_BITS, Place, Slot, TAG_BITS};
use proptest::prelude::*;

/// Where the tag begins in a hash.
const TAG_AT: u32 = 40;

proptest! {
    /// Whatever its hash is, also one whose tag would be zero: an empty slot is no key's.
    #[test]
    fn no_key_looks_like_an_empty_slot(hash: u64, no_tag: bool) {
        let mask = ((1 << TAG_BITS) - 1) << TAG_AT;
        let place = Place::new(if no_tag { hash & !mask } else { hash }, 8_191);
        prop_assert!(!Slot::EMPTY.has_tag(place.tag()));
        prop_assert!(Slot::new(0, place.tag()).has_tag(place.tag()));
        prop_assert_ne!(place.first(), place.second());
        prop_assert!((place.home() as usize) < SLOTS_OF_LINE);
    }

    /// What a slot says of its entry stays apart.
    #[test]
    fn a_slot_keeps_what_it_is_given(number in 0_u32..(1 << ENTRY_BITS) - 1, tag in 1_u32..1 << TAG_BITS) {
        let proved = Slot::new(number, tag);
        let newcomer = proved.newcomer();
        prop_assert_eq!((proved.newcomers(), newcomer.newcomers()), (0, 1));
        prop_assert_eq!(newcomer.proved(), proved);
        for slot in [proved, newcomer] {
            prop_assert_eq!(slot.entry(), number);
            prop_assert!(slot.has_tag(tag) && !slot.has_tag(tag ^ 1) && !slot.is_empty());
        }
    }

    /// A place has 32 slots in two lines, its home in the first one; a place nearby has others.
    #[test]
    fn a_place_has_two_lines(hash: u64, distance in 1_u32..12) {
        let place = Place::new(hash, (1 << 19) - 1);
        for number in 0..32 {
            let line = if number < 16 { place.first() } else { place.second() };
            prop_assert_eq!(place.slot(number), (line, number as usize % 16));
        }
        prop_assert_eq!(Place::from_word(place.word()), place);
        let nearby = place.nearby(distance);
        prop_assert_eq!((nearby.tag(), nearby.home()), (place.tag(), place.home()));
        prop_assert_eq!(nearby.first() ^ place.first(), 1 << (distance - 1));
        prop_assert_eq!(nearby.second() ^ place.second(), 1 << (distance - 1));
    }
}
