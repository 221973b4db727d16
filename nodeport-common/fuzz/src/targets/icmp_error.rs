//! ICMP errors about flows, with quotes that are changed and cut.

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, faults, tcp, udp};

use super::Input;
use crate::support::*;

/// They change no flow, whatever they say, and their checksum is right if it was.
pub(crate) fn icmp_error(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 { error::<V4>(input) } else { error::<V6>(input) }
}

fn error<F: Net>(mut input: Input<'_>) {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.connect_local::<F>(client::<F>());
    let sent = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    let about = [
        tcp(seen, remote::<F>(), ACK).payload(b"there"),
        tcp(frontend::<F>(), client::<F>(), ACK).payload(b"and back"),
        tcp(client::<F>(), local::<F>(), SYN),
        tcp(local_frontend::<F>(), client::<F>(), ACK),
        udp(sent, remote::<F>()),
    ];
    let which = usize::from(input.byte()) % about.len();
    let mut quote = about[which].packet();
    for _ in 0..input.byte() % 4 {
        let at = usize::from(input.byte()) % quote.len();
        quote[at] = input.byte();
    }
    quote.truncate(usize::from(input.byte()));
    let message = Icmp { kind: input.byte() % 16, code: input.byte() % 8, word: input.bytes() };
    let to = input.of(&[seen.ip(), node_ip::<F>(), client_ip::<F>()]);
    let hook = input.of(&[Hook::Xdp, Hook::Ingress, Hook::Egress, Hook::Pod]);
    let draft = Draft::icmp(F::party(77, 1), to, message, &quote).ttl(input.of(&[64, 2, 1, 0]));
    let frame = [draft.build().as_slice(), input.rest()].concat();

    let before = node.halves::<F>();
    let out = node.walk(hook, &frame);
    assert_eq!(node.halves::<F>(), before, "an error changed a flow");
    match out.action {
        Action::Pass => assert_eq!(out.bytes, frame),
        Action::Drop => {}
        Action::Stack
        | Action::Send(_)
        | Action::Back(_)
        | Action::Neighbour(_)
        | Action::Pod(_) => {
            assert_eq!(faults(&out.bytes), Vec::<String>::new());
            assert_eq!(out.bytes.len(), frame.len());
        }
    }
}
