//! The numbers by which flows name interfaces.

use std::collections::BTreeMap;

use nodeport_common::abi::{Device, Exit, Mac, maps};

use super::maps::shared;
use super::pins::Pins;
use super::sys::SharedArray;

/// Gives out numbers. 0 is none's.
#[derive(Debug)]
pub(super) struct Exits {
    memory: SharedArray<Exit>,
    /// By the interface's own number.
    given: BTreeMap<u32, u16>,
    last: u16,
}

impl Exits {
    /// With the numbers that the map of devices tells.
    pub(super) fn open(pins: &Pins, devices: &BTreeMap<u32, Device>) -> anyhow::Result<Self> {
        let memory = shared(pins, maps::EXITS)?;
        let given = devices.iter().map(|(ifindex, device)| (*ifindex, device.exit));
        let given: BTreeMap<_, _> = given.filter(|(_, exit)| *exit != 0).collect();
        let last = given.values().copied().max().unwrap_or(0);
        Ok(Self { memory, given, last })
    }

    /// Forgets interfaces that are gone.
    pub(super) fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.given.retain(|ifindex, _| is_there(*ifindex));
    }

    /// Takes the number of one interface back.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.given.remove(&ifindex);
    }

    /// The number of an interface, for flows to be written by now; 0 if there is none left.
    pub(super) fn of(&mut self, ifindex: u32, mac: Mac) -> u16 {
        let number = match self.given.get(&ifindex) {
            Some(number) => *number,
            None => match next_free(self.last, self.memory.len(), &self.given) {
                Some(number) => self.give(ifindex, number),
                None => return 0,
            },
        };
        let exit = Exit { ifindex, mac, pad: [0; 6] };
        if self.memory.read(number.into()) != Some(exit) {
            self.memory.update(number.into(), |place| *place = exit);
        }
        number
    }

    fn give(&mut self, ifindex: u32, number: u16) -> u16 {
        self.given.insert(ifindex, number);
        self.last = number;
        number
    }
}

/// The next number behind `last` that nobody has: one that was given back is given out again as
/// late as can be, when no flow has it any more.
fn next_free(last: u16, len: u32, given: &BTreeMap<u32, u16>) -> Option<u16> {
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    let behind = last.saturating_add(1)..len;
    let is_free = |number: &u16| !given.values().any(|other| other == number);
    behind.chain(1..len).find(is_free)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    const LEN: u32 = 4;

    fn exits(given: BTreeMap<u32, u16>) -> Exits {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(LEN) * size_of::<Exit>() as u64).unwrap();
        Exits { memory: SharedArray::map(file.as_fd(), LEN).unwrap(), given, last: 0 }
    }

    #[test]
    fn an_interface_keeps_its_number_and_a_new_address_is_told() {
        let mut exits = exits([(10, 2)].into());
        assert_eq!((exits.of(10, [1; 6]), exits.of(11, [2; 6])), (2, 1));
        assert_eq!(exits.of(10, [3; 6]), 2);
        let told = Exit { ifindex: 10, mac: [3; 6], pad: [0; 6] };
        assert_eq!(exits.memory.read(2), Some(told));
    }

    #[test]
    fn a_number_is_given_to_one_interface_at_a_time() {
        let mut exits = exits(BTreeMap::new());
        let numbers = [10, 11, 12, 13].map(|ifindex| exits.of(ifindex, [0; 6]));
        assert_eq!(numbers, [1, 2, 3, 0]);
        exits.forget(11);
        assert_eq!(exits.of(13, [0; 6]), 2);
        exits.keep(|ifindex| ifindex == 13);
        assert_eq!([13, 14].map(|ifindex| exits.of(ifindex, [0; 6])), [2, 3]);
    }

    #[test]
    fn numbers_come_again_as_late_as_can_be() {
        let mut given = BTreeMap::new();
        assert_eq!(next_free(0, 4, &given), Some(1));
        given.insert(10, 1);
        assert_eq!(next_free(1, 4, &given), Some(2));
        assert_eq!(next_free(3, 4, &given), Some(2));
        given.extend([(11, 2), (12, 3)]);
        assert_eq!(next_free(3, 4, &given), None);
        given.remove(&10);
        assert_eq!(next_free(2, 4, &given), Some(1));
    }
}
