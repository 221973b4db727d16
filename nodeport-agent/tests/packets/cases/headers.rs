//! Headers of every form.

use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Net, tcp, udp};

use super::CaseTable;
use crate::network::{IN, OUT, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

/// PadN over the rest of eight bytes.
const PADDED: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A changed SYN or datagram, served twice: as a newcomer and as one of a flow.
fn served<F: Net>(hook: Hook, change: impl Fn(Draft) -> Draft) -> Vec<Event> {
    vec![step::<F>(hook, Action::Send(IN), &change), step::<F>(hook, Action::Send(IN), &change)]
}

fn step<F: Net>(hook: Hook, action: Action, change: impl Fn(Draft) -> Draft) -> Event {
    let macs = (mac(8, 20), own_mac(8));
    let sent = change(tcp(client::<F>(), frontend::<F>(REMOTE), SYN).payload(b"abc"));
    let out = tcp(snat::<F>(8), backend::<F>(REMOTE), SYN).payload(b"abc").ttl(63);
    let out = change(out.macs(macs.0, macs.1));
    Step::becomes(hook, &sent, action, &out).into()
}

/// Frames with VLAN tags: XDP sends those that need just their tags from the interface below, and
/// hands up all others; TC leaves tags to the devices.
fn tags<F: Net>(table: &mut CaseTable) {
    let below = Action::Send(OUT);
    let untagged = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).payload(b"abc");
    let one = |draft: Draft| draft.tag(0x8100, 0xa005);
    let two = |draft: Draft| draft.tag(0x88a8, 5).tag(0x8100, 0x6007);
    let passed = |draft: Draft| Step::passed(Hook::Xdp, draft.build()).into();
    table.add(
        "one_tag::xdp",
        [
            passed(one(untagged.clone())),
            Event::Write(|state| put_behind(state, &[(0x8100, 5)])),
            passed(untagged.clone()),
            step::<F>(Hook::Xdp, below, one),
            step::<F>(Hook::Xdp, below, one),
            passed(untagged.clone()),
            passed(untagged.clone().tag(0x8100, 6)),
            passed(untagged.clone().tag(0x88a8, 5)),
            passed(two(untagged.clone())),
        ],
    );
    table.add(
        "two_tags::xdp",
        [
            passed(two(untagged.clone())),
            Event::Write(|state| put_behind(state, &[(0x88a8, 5), (0x8100, 7)])),
            passed(untagged.clone()),
            step::<F>(Hook::Xdp, below, two),
            step::<F>(Hook::Xdp, below, two),
            passed(one(untagged.clone())),
            passed(untagged.clone().tag(0x88a8, 5)),
            passed(untagged.tag(0x88a8, 5).tag(0x8100, 8)),
        ],
    );
    table.add(
        "one_tag::tc",
        [
            step::<F>(Hook::Ingress, Action::Send(IN), one),
            Event::Write(|state| put_behind(state, &[(0x8100, 5)])),
            step::<F>(Hook::Ingress, Action::Neighbour(IN), one),
            step::<F>(Hook::Ingress, Action::Neighbour(IN), |draft| draft),
        ],
    );
}

fn passed(hook: Hook, frames: Vec<Vec<u8>>) -> Vec<Event> {
    frames.into_iter().map(|frame| Step::passed(hook, frame).into()).collect()
}

/// SCTP to the number of a port that is served is nobody's of ours, also where a flow has the same
/// addresses and ports: it goes up as it came.
fn sctp<F: Net>(hook: Hook) -> Vec<Event> {
    const ETHERNET: usize = 14;
    const SCTP: u8 = 132;
    // Ports stand where TCP has them; tag, checksum and chunk need not make sense to a node.
    let mut frame = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).payload(b"abc").build();
    if F::VERSION == 4 {
        frame[ETHERNET + 9] = SCTP;
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
        let words = frame[ETHERNET..ETHERNET + 20].chunks_exact(2);
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[ETHERNET + 6] = SCTP;
    }
    let passes = || Step::passed(hook, frame.clone()).into();
    let is_served = || step::<F>(hook, Action::Send(IN), |draft| draft);
    vec![passes(), is_served(), passes(), is_served()]
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    table.add_arriving("sctp", sctp::<F>);
    tags::<F>(table);
    table.add_arriving("three_tags", |hook| {
        let draft = tcp(client::<F>(), frontend::<F>(REMOTE), SYN);
        passed(hook, vec![draft.tag(0x8100, 1).tag(0x8100, 2).tag(0x8100, 3).build()])
    });
    if F::VERSION == 4 {
        options::<F>(table);
    } else {
        extensions::<F>(table);
    }
    table.add_arriving("cut_short", cut_short::<F>);
    table.add_arriving("length_too_short", |hook| {
        let frame = udp(client::<F>(), frontend::<F>(REMOTE)).build();
        let at = if F::VERSION == 4 { 16 } else { 18 };
        let cut = |beyond: usize| {
            let mut frame = frame.clone();
            let length = if F::VERSION == 4 { F::HEADER + beyond } else { beyond };
            frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
            frame
        };
        passed(hook, (0..8).map(cut).collect())
    });
}

fn cut_short<F: Net>(hook: Hook) -> Vec<Event> {
    let frame = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).tag(0x8100, 1).build();
    let plain = tcp(client::<F>(), frontend::<F>(REMOTE), ACK).build();
    // The test run itself refuses a frame without a whole IP header; the host's tests have those.
    let cuts = |frame: Vec<u8>| (14 + F::HEADER..frame.len()).map(move |end| frame[..end].to_vec());
    passed(hook, cuts(frame).chain(cuts(plain)).collect())
}

fn options<F: Net>(table: &mut CaseTable) {
    for length in [4, 12, 40] {
        table.add_arriving(&format!("options_of_{length}"), |hook| {
            served::<F>(hook, |draft| draft.options(&vec![1; length]))
        });
    }
    table.add(
        "tags_and_options",
        [
            Event::Write(|state| put_behind(state, &[(0x88a8, 1), (0x8100, 2)])),
            step::<F>(Hook::Xdp, Action::Send(OUT), |draft| {
                draft.tag(0x88a8, 1).tag(0x8100, 2).options(&[1; 40])
            }),
        ],
    );
    let draft = udp(client::<F>(), frontend::<F>(REMOTE));
    let fragments = [(0, true), (3, true), (3, false)];
    let fragments = fragments.map(|(at, more)| draft.clone().fragment(at, more).build());
    table.add("fragments::xdp", passed(Hook::Xdp, fragments.into()));
    table.add_arriving("bad_first_byte", |hook| {
        let frame = udp(client::<F>(), frontend::<F>(REMOTE)).build();
        let bad = |first| {
            let mut frame = frame.clone();
            frame[14] = first;
            frame
        };
        passed(hook, [0x40, 0x44, 0x65, 0x05].map(bad).into())
    });
}

fn extensions<F: Net>(table: &mut CaseTable) {
    let mut long = [0; 64];
    (long[1], long[2], long[3]) = (7, 1, 60);
    let mut authentication = [0; 24];
    authentication[1] = 4;
    for (name, protocol, header) in [
        ("hop_by_hop", 0, PADDED.to_vec()),
        ("destination", 60, long.to_vec()),
        ("authentication", 51, authentication.to_vec()),
        ("routing_arrived", 43, vec![0, 0, 4, 0, 0, 0, 0, 0]),
    ] {
        table.add_arriving(&format!("extension::{name}"), |hook| {
            served::<F>(hook, |draft| draft.extension(protocol, &header))
        });
    }
    let chain =
        |draft: Draft, length| (0..length).fold(draft, |draft, _| draft.extension(60, &PADDED));
    table.add_arriving("extension::eight", |hook| served::<F>(hook, |draft| chain(draft, 8)));
    table.add_arriving("extension::refused", |hook| {
        let draft = udp(client::<F>(), frontend::<F>(REMOTE));
        let mut segments_left = vec![0; 24];
        (segments_left[1], segments_left[2], segments_left[3]) = (2, 4, 1);
        let mut huge = vec![0; 2048];
        (huge[1], huge[2]) = (255, 1);
        let frames = [
            chain(draft.clone(), 9),
            chain(draft.clone(), 12),
            draft.clone().extension(43, &segments_left),
            draft.clone().extension(60, &huge),
            draft.clone().extension(59, &PADDED),
            draft.extension(135, &PADDED),
        ];
        passed(hook, frames.map(|draft| draft.build()).into())
    });
    let parts = [
        udp(client::<F>(), frontend::<F>(REMOTE)).extension(44, &[0, 0, 0, 1, 1, 2, 3, 4]),
        udp(client::<F>(), frontend::<F>(REMOTE))
            .extension(0, &PADDED)
            .extension(44, &[0, 0, 8, 0, 1, 2, 3, 4]),
    ];
    table.add(
        "extension::fragments::xdp",
        passed(Hook::Xdp, parts.map(|draft| draft.build()).into()),
    );
    table.add_arriving("extension::all_of_a_packet", |hook| {
        served::<F>(hook, |draft| draft.extension(44, &[0, 0, 0, 0, 1, 2, 3, 4]))
    });
}
