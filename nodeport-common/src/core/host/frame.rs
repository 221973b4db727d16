//! A frame over a vector of bytes.

use std::vec::Vec;

use crate::core::checksum;
use crate::core::env::{ChecksumChange, MAX_OFFSET, Packet, Room, Window, Word};
use crate::core::parse::ETHERNET;

/// Who finishes the transport checksum of a frame in TC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field is complete.
    #[default]
    Finished,
    /// The network card will: the field has the sum of the pseudo-header (the kernel's
    /// `CHECKSUM_PARTIAL`).
    Partial,
}

/// A frame. `OWN`: the walk keeps transport checksums itself, as in XDP; otherwise the kernel
/// does, as in TC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame<const OWN: bool> {
    /// The bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Payload bytes of each segment that the frame will be cut into; 0 if it will not.
    pub gso_size: u16,
    /// Who finishes the transport checksum; only TC asks.
    pub checksum: Checksum,
    /// The sum that the network card has made of all behind the Ethernet header, if it has (the
    /// kernel's `CHECKSUM_COMPLETE`); only TC asks.
    pub sum: Option<u16>,
    /// Whether XDP has noted that it is done with the frame.
    pub done: bool,
    /// The driver has no room for such a note.
    pub takes_no_note: bool,
}

/// A frame in XDP.
pub type XdpFrame = Frame<true>;
/// A frame in TC.
pub type SkbFrame = Frame<false>;

impl<const OWN: bool> Frame<OWN> {
    /// A frame with these bytes and nothing special about it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

/// A checked part of a frame.
#[derive(Debug)]
pub struct Bytes<'a, const N: usize>(&'a mut [u8; N]);

impl<const N: usize> Window<N> for Bytes<'_, N> {
    fn load<T: Word, const OFF: usize>(&self) -> T {
        const { assert!(OFF + size_of::<T>() <= N, "outside the window") };
        let bytes = &self.0[OFF..OFF + size_of::<T>()];
        match T::read_from_bytes(bytes) {
            Ok(word) => word,
            Err(_) => unreachable!("the slice has the size of the word"),
        }
    }

    fn store<T: Word, const OFF: usize>(&mut self, value: T) {
        const { assert!(OFF + size_of::<T>() <= N, "outside the window") };
        self.0[OFF..OFF + size_of::<T>()].copy_from_slice(value.as_bytes());
    }
}

impl<const OWN: bool> Packet for Frame<OWN> {
    type Window<'a, const N: usize> = Bytes<'a, N>;

    const OWN_CHECKSUM: bool = OWN;

    fn window<const N: usize>(&mut self, offset: usize) -> Option<Bytes<'_, N>> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.bytes.get_mut(offset..)?.first_chunk_mut().map(Bytes)
    }

    fn gso_size(&self) -> u16 {
        if OWN { 0 } else { self.gso_size }
    }

    fn make_linear(&mut self, _: u32) {}

    fn replace_checksum(&mut self, offset: usize, change: ChecksumChange) -> bool {
        let partial = self.checksum == Checksum::Partial;
        let Some(mut field) = self.window::<2>(offset) else { return false };
        let old = field.load::<u16, 0>();
        let new = if partial { old_partial(old, change) } else { finished(old, change) };
        field.store::<u16, 0>(new);
        if !change.udp || old != 0 {
            self.add_to_sum(checksum::inverse(change.address_diff));
        }
        true
    }

    fn add_to_sum(&mut self, diff: u16) {
        self.sum = self.sum.map(|sum| checksum::combine(sum, diff));
    }

    fn mark_done(&mut self) -> bool {
        self.done = OWN && !self.takes_no_note;
        !self.takes_no_note
    }

    fn cut(&mut self, keep: usize) -> bool {
        self.bytes.truncate(keep);
        true
    }

    fn open_room(&mut self, l3: usize, room: Room, keep: usize) -> bool {
        // The kernel makes room in IP packets only; a tagged one has another protocol for it.
        if !OWN && l3 != ETHERNET {
            return false;
        }
        self.bytes.truncate(keep);
        // XDP moves the header with both its tags, whether they are there or not.
        let header = if OWN { ETHERNET + 8 } else { ETHERNET };
        let Some(header) = self.bytes.get(..header).map(<[u8]>::to_vec) else { return false };
        self.bytes.splice(..0, std::iter::repeat_n(0, room.bytes()));
        self.bytes[..header.len()].copy_from_slice(&header);
        true
    }
}

/// What `bpf_l4_csum_replace` makes of a finished checksum, called for the addresses and then for
/// the ports.
fn finished(old: u16, change: ChecksumChange) -> u16 {
    let step = |field, diff| match change.udp {
        true => checksum::update_udp(field, diff),
        false => checksum::update(field, diff),
    };
    let field = step(old, change.address_diff);
    if change.port_diff == 0 { field } else { step(field, change.port_diff) }
}

/// The same where the network card adds the rest: the field holds the pseudo-header's sum, not
/// its complement, so the ports are none of its business.
fn old_partial(old: u16, change: ChecksumChange) -> u16 {
    if change.udp && old == 0 {
        return 0;
    }
    checksum::combine(old, change.address_diff)
}
