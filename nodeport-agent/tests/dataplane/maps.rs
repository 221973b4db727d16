//! What is written into the maps is there, also after a restart; what does not fit is named.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use aya::maps::Array;
use nodeport_agent::dataplane::{self, Dataplane as _, Op};
use nodeport_common::abi::{
    ADDRESS_NAMED, ADDRESS_OWN, ADDRESS_SERVED, BACKEND_USABLE, Backend, Frontend, FrontendKey,
    IPPROTO_TCP, PORT_BACKEND, PORT_FRONTEND,
};

use crate::world::in_own_world;

fn some_ops() -> Vec<Op> {
    let backend = Backend {
        address: [10, 0, 0, 9],
        port: 80,
        flags: 0,
        state: BACKEND_USABLE,
        generation: 3,
        weight: 1,
    };
    vec![
        Op::PutBackend4(7, backend),
        Op::WriteSlots { offset: 10, slots: (100..140).collect() },
        Op::PutFrontend4(
            frontend(30_007),
            Frontend { service: 1, slots_offset: 10, slots_len: 40, ..Frontend::default() },
        ),
        Op::SetPort(30_007, PORT_FRONTEND),
        Op::SetPort(10_007, PORT_BACKEND),
        Op::PutAddress4([10, 9, 0, 1], ADDRESS_SERVED),
        Op::PutAddress6([1; 16], ADDRESS_OWN | ADDRESS_NAMED),
        Op::Barrier,
    ]
}

#[test]
fn what_is_written_is_read_and_survives_a_restart() {
    in_own_world(|world| {
        let config = world.config("a", &["n0"]);
        let mut first = dataplane::open(&config).unwrap();
        assert_eq!(first.observe().unwrap(), dataplane::Observed::default());
        let failures = first.apply(&some_ops());
        assert!(failures.is_empty(), "{failures:?}");
        let seen = first.observe().unwrap();
        assert_eq!(seen.backends4.len(), 1);
        assert_eq!(seen.frontends4.len(), 1);
        assert_eq!(seen.addresses4, [([10, 9, 0, 1], ADDRESS_SERVED)]);
        assert_eq!(seen.addresses6, [([1; 16], ADDRESS_OWN | ADDRESS_NAMED)]);
        // The bit of the SNAT range is not the control side's.
        assert_eq!(seen.ports, [(10_007, PORT_BACKEND), (30_007, PORT_FRONTEND)]);
        assert_eq!(first.read_slots(9, 5).unwrap(), [0, 100, 101, 102, 103]);
        assert_eq!(first.read_slots(48, 3).unwrap(), [138, 139, 0]);
        assert_eq!(first.slot_capacity(), 65_536);
        assert!(first.read_slots(65_530, 7).is_err());
        drop(first);
        let mut second = dataplane::open(&config).unwrap();
        assert_eq!(second.observe().unwrap(), seen);
        let failures = second.apply(&[
            Op::RemoveFrontend4(frontend(30_007)),
            Op::RemoveFrontend4(frontend(1)),
            Op::SetPort(30_007, 0),
            Op::SetPort(10_007, 0),
            Op::RemoveAddress4([10, 9, 0, 1]),
            Op::RemoveAddress6([1; 16]),
            Op::PutBackend4(7, Backend::default()),
        ]);
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(second.observe().unwrap(), dataplane::Observed::default());
    });
}

#[test]
fn a_full_map_is_named_and_the_rest_goes_on() {
    in_own_world(|world| {
        let mut agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let mut ops: Vec<Op> = (0..=u16::MAX)
            .map(|port| Op::PutFrontend4(frontend(port), Frontend::default()))
            .collect();
        ops.push(Op::PutFrontend4(
            FrontendKey { address: [10, 9, 0, 2], ..frontend(80) },
            Frontend::default(),
        ));
        ops.push(Op::PutAddress4([10, 9, 0, 1], ADDRESS_SERVED));
        let failures = agent.apply(&ops);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].index, 65_536);
        let error = failures[0].error.to_string();
        assert!(
            error.contains("frontends4 is full") && error.contains("10.9.0.2:80 TCP"),
            "{error}"
        );
        assert_eq!(agent.observe().unwrap().addresses4, [([10, 9, 0, 1], ADDRESS_SERVED)]);
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    in_own_world(|world| {
        let folder = world.pins("a");
        DirBuilder::new().recursive(true).mode(0o700).create(folder.join("links")).unwrap();
        let map: Array<_, u32> = Array::create(1, 0).unwrap();
        map.pin(folder.join("control")).unwrap();
        let error = format!("{:#}", dataplane::open(&world.config("a", &["n0"])).unwrap_err());
        assert!(error.contains("control is another than this agent's"), "{error}");
        assert!(error.contains("cleanup"), "{error}");
    });
}

fn frontend(port: u16) -> FrontendKey<[u8; 4]> {
    FrontendKey { address: [10, 9, 0, 1], port, protocol: IPPROTO_TCP, pad: 0 }
}
