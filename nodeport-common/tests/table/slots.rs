//! Where keys may be.

use nodeport_common::core::table::slot::{Place, Slot};
use proptest::prelude::*;

proptest! {
    /// Whatever its hash is, also one whose upper bits are zero: an empty slot is no key's.
    #[test]
    fn no_key_looks_like_an_empty_slot(low in 0_u64..1 << 48, tag in prop_oneof![Just(0), any::<u16>()]) {
        let place = Place::new(low | u64::from(tag) << 48, 8_191);
        prop_assert!(!Slot::EMPTY.has_tag(place.tag()));
        prop_assert!(!Slot::EMPTY.is_found_by(place.tag()));
        prop_assert!(Slot::new(0, place.tag(), 0).is_found_by(place.tag()));
        prop_assert_ne!(place.first(), place.second());
    }
}
