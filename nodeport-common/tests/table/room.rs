//! Who is found where there is no room.

use nodeport_common::abi::SLOTS_OF_LINE;
use nodeport_common::core::env::Inserted;

use crate::memory::body_of;
use crate::memory::on_host::Memory;

/// Slots of two lines, which are every key's where there are no more.
const SLOTS: u64 = 2 * SLOTS_OF_LINE as u64;

/// However many have proved themselves since their slots were set: the one that has not is found at
/// the first try, wherever it lies.
#[test]
fn one_newcomer_among_the_proved_goes() {
    for newcomer in 1..=SLOTS {
        let memory = Memory::new(2, SLOTS as usize);
        for key in 1..=SLOTS {
            assert_eq!(memory.claim(key, body_of(key, 1), false, 1), Inserted::Done, "{key}");
            assert!(key == newcomer || memory.prove(key), "{key}");
        }
        let key = SLOTS + 1;
        assert_eq!(memory.claim(key, body_of(key, 1), true, 2), Inserted::Done, "{newcomer}");
        assert_eq!(memory.read(newcomer), None);
        assert_eq!(
            memory.claim(newcomer, 0, true, 2),
            Inserted::Full,
            "all have proved themselves"
        );
        assert_eq!(memory.audit().keys.len() as u64, SLOTS);
    }
}
