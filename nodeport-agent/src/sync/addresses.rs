//! What the maps know of addresses: those of the node, on which of them nodePorts are served, and those
//! that frontends name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use foldhash::HashMap;
use nodeport_common::abi::{ADDRESS_NAMED, ADDRESS_OWN, ADDRESS_SERVED};

use super::maps::{hold, release};

/// Addresses with `ADDRESS_*` bits, and what the bits come from.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// As they are in the maps.
    bits: HashMap<IpAddr, u32>,
    /// How many frontends name an address.
    named: HashMap<IpAddr, u32>,
    served: BTreeSet<IpAddr>,
    own: BTreeSet<IpAddr>,
    /// Those whose bits may be wrong.
    doubtful: BTreeSet<IpAddr>,
}

impl Addresses {
    /// These bits are in the maps.
    pub(super) fn put(&mut self, address: IpAddr, bits: u32) {
        match bits {
            0 => self.bits.remove(&address),
            bits => self.bits.insert(address, bits),
        };
        if bits & ADDRESS_SERVED != 0 {
            self.served.insert(address);
        }
        if bits & ADDRESS_OWN != 0 {
            self.own.insert(address);
        }
        if self.wanted(address) == bits {
            self.doubtful.remove(&address);
        }
    }

    /// One more frontend names it.
    pub(super) fn name(&mut self, address: IpAddr) {
        if !address.is_unspecified() {
            hold(&mut self.named, address);
            self.doubt(address);
        }
    }

    /// One frontend less names it.
    pub(super) fn unname(&mut self, address: IpAddr) {
        if !address.is_unspecified() && release(&mut self.named, address) {
            self.doubt(address);
        }
    }

    /// NodePorts shall be served on these.
    pub(super) fn serve(&mut self, served: &BTreeSet<IpAddr>) {
        if self.served != *served {
            let differ: Vec<_> = self.served.symmetric_difference(served).copied().collect();
            self.served.clone_from(served);
            differ.into_iter().for_each(|address| self.doubt(address));
        }
    }

    /// Interfaces of the node have these.
    pub(super) fn own(&mut self, own: &BTreeSet<IpAddr>) {
        if self.own != *own {
            let differ: Vec<_> = self.own.symmetric_difference(own).copied().collect();
            self.own.clone_from(own);
            differ.into_iter().for_each(|address| self.doubt(address));
        }
    }

    /// Doubts all: what was found may come from frontends that are gone.
    pub(super) fn doubt_all(&mut self) {
        let all: Vec<_> = self.bits.keys().chain(self.named.keys()).copied().collect();
        all.into_iter().for_each(|address| self.doubt(address));
    }

    /// Addresses whose bits must be written, and which those are.
    pub(super) fn wrong(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.doubtful.iter().map(|address| (*address, self.wanted(*address)))
    }

    /// Whether any must be.
    pub(super) fn are_right(&self) -> bool {
        self.doubtful.is_empty()
    }

    fn doubt(&mut self, address: IpAddr) {
        let is_right = self.bits.get(&address).copied().unwrap_or(0) == self.wanted(address);
        match is_right {
            true => self.doubtful.remove(&address),
            false => self.doubtful.insert(address),
        };
    }

    fn wanted(&self, address: IpAddr) -> u32 {
        let bit = |holds: bool, bit: u32| if holds { bit } else { 0 };
        bit(self.served.contains(&address), ADDRESS_SERVED)
            | bit(self.own.contains(&address), ADDRESS_OWN)
            | bit(self.named.contains_key(&address), ADDRESS_NAMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Writes what is wrong; what was.
    fn right(addresses: &mut Addresses) -> Vec<(IpAddr, u32)> {
        let wrong: Vec<_> = addresses.wrong().collect();
        wrong.iter().for_each(|(address, bits)| addresses.put(*address, *bits));
        assert!(addresses.are_right());
        wrong
    }

    #[test]
    fn an_address_has_the_bits_of_all_that_speaks_for_it() {
        let mut addresses = Addresses::default();
        addresses.serve(&[address(1)].into());
        addresses.own(&[address(1), address(2)].into());
        addresses.name(address(2));
        addresses.name(address(2));
        addresses.name(address(3));
        addresses.name([0, 0, 0, 0].into());
        let (both, also) = (ADDRESS_SERVED | ADDRESS_OWN, ADDRESS_OWN | ADDRESS_NAMED);
        let expected = [(address(1), both), (address(2), also), (address(3), ADDRESS_NAMED)];
        assert_eq!(right(&mut addresses), expected);
        addresses.unname(address(2));
        addresses.serve(&[address(1)].into());
        assert!(addresses.are_right());
        addresses.unname(address(2));
        addresses.unname(address(3));
        addresses.serve(&[address(2)].into());
        let expected = [(address(1), ADDRESS_OWN), (address(2), both), (address(3), 0)];
        assert_eq!(right(&mut addresses), expected);
    }

    #[test]
    fn what_comes_and_goes_between_two_writes_is_not_written() {
        let mut addresses = Addresses::default();
        addresses.name(address(1));
        addresses.unname(address(1));
        addresses.own(&[address(2)].into());
        addresses.own(&[].into());
        assert!(addresses.are_right());
    }

    #[test]
    fn what_was_found_is_kept_as_far_as_something_speaks_for_it() {
        let mut addresses = Addresses::default();
        addresses.put(address(1), ADDRESS_SERVED | ADDRESS_OWN);
        addresses.put(address(2), ADDRESS_NAMED);
        addresses.put(address(3), ADDRESS_NAMED);
        addresses.name(address(2));
        addresses.doubt_all();
        assert_eq!(right(&mut addresses), [(address(3), 0)]);
    }
}
