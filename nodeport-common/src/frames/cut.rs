//! Cutting frames into fragments, and putting them together again as a receiver would.

use std::vec::Vec;

use etherparse::{IpFragOffset, Ipv4Header};

/// Length of an Ethernet header without tags, of an IPv6 header, and of a fragment header.
const ETHERNET: usize = 14;
const IPV6: usize = 40;
const FRAGMENT: usize = 8;
/// Protocol number of a fragment header.
const KIND: u8 = 44;

/// The fragments of a frame without tags, options and extension headers, each with `size` bytes (a
/// multiple of 8) behind its headers, the last one with what is left.
///
/// # Panics
/// If the frame has others, or `size` is none.
pub fn cut(frame: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    assert!(size > 0 && size.is_multiple_of(8), "{size} is no length of a fragment");
    let is_v4 = frame[ETHERNET] >> 4 == 4;
    let headers = ETHERNET + if is_v4 { 20 } else { IPV6 };
    let payload = &frame[headers..];
    let part = |at: usize| {
        let end = payload.len().min(at + size);
        let more = end < payload.len();
        let header = if is_v4 {
            header4(&frame[ETHERNET..headers], at, end - at, more, id)
        } else {
            header6(&frame[ETHERNET..headers], at, end - at, more, id)
        };
        [&frame[..ETHERNET], &header, &payload[at..end]].concat()
    };
    (0..payload.len()).step_by(size).map(part).collect()
}

fn header4(whole: &[u8], at: usize, length: usize, more: bool, id: u32) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(whole).expect("a header");
    assert_eq!(header.header_len(), 20, "no options");
    header.dont_fragment = false;
    header.more_fragments = more;
    header.identification = id as u16;
    header.fragment_offset = IpFragOffset::try_new((at / 8) as u16).expect("13 bits");
    header.set_payload_len(length).expect("fits");
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

fn header6(whole: &[u8], at: usize, length: usize, more: bool, id: u32) -> Vec<u8> {
    let mut header = whole.to_vec();
    let next = core::mem::replace(&mut header[6], KIND);
    header[4..6].copy_from_slice(&((length + FRAGMENT) as u16).to_be_bytes());
    header.extend([next, 0]);
    header.extend((at as u16 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header
}

/// The frame that fragments make, in whatever order they come; `None` if there is a gap. Where they
/// overlap, the later one counts.
///
/// # Panics
/// If they are no fragments.
pub fn join(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
    let is_v4 = fragments.first()?[ETHERNET] >> 4 == 4;
    let (mut payload, mut have, mut end, mut head) = (Vec::new(), Vec::new(), None, None);
    for fragment in fragments {
        let (at, more, headers) = place(fragment, is_v4);
        let part = &fragment[headers..];
        let to = at + part.len();
        payload.resize(payload.len().max(to), 0);
        have.resize(payload.len(), false);
        payload[at..to].copy_from_slice(part);
        have[at..to].fill(true);
        end = if more { end } else { Some(to) };
        head = if at == 0 { Some(fragment) } else { head };
    }
    if end? != payload.len() || have.contains(&false) {
        return None;
    }
    Some(whole(head?, &payload, is_v4))
}

/// Offset in bytes, whether others follow, and the length of all headers.
fn place(fragment: &[u8], is_v4: bool) -> (usize, bool, usize) {
    let word = |at: usize| u16::from_be_bytes([fragment[at], fragment[at + 1]]);
    if is_v4 {
        let field = word(ETHERNET + 6);
        let checked = Ipv4Header::from_slice(&fragment[ETHERNET..]).expect("a header").0;
        assert_eq!(checked.header_checksum, checked.calc_header_checksum(), "of a fragment");
        assert_eq!(usize::from(checked.total_len), fragment.len() - ETHERNET);
        return (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, ETHERNET + 20);
    }
    assert_eq!(fragment[ETHERNET + 6], KIND, "a fragment header follows");
    assert_eq!(usize::from(word(ETHERNET + 4)), fragment.len() - ETHERNET - IPV6);
    let field = word(ETHERNET + IPV6 + 2);
    (usize::from(field & !7), field & 1 != 0, ETHERNET + IPV6 + FRAGMENT)
}

fn whole(head: &[u8], payload: &[u8], is_v4: bool) -> Vec<u8> {
    let mut frame = head[..ETHERNET + if is_v4 { 20 } else { IPV6 }].to_vec();
    if is_v4 {
        let (mut header, _) = Ipv4Header::from_slice(&head[ETHERNET..]).expect("a header");
        header.more_fragments = false;
        header.set_payload_len(payload.len()).expect("fits");
        header.header_checksum = header.calc_header_checksum();
        frame[ETHERNET..].copy_from_slice(&header.to_bytes());
    } else {
        frame[ETHERNET + 6] = head[ETHERNET + IPV6];
        frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}
