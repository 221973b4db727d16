//! Changes of routes, neighbours and rules have next hops looked up anew.

use std::time::{Duration, Instant};

use nodeport_agent::dataplane;

use crate::look::epoch;
use crate::world::{World, in_own_world, ip, until};

#[test]
fn every_change_of_the_way_raises_the_epoch() {
    in_own_world(|world| {
        let _agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let mut last = settled_epoch(world);
        for change in [
            "route add 10.77.0.0/16 via 10.9.0.2",
            "route delete 10.77.0.0/16 via 10.9.0.2",
            "neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud reachable",
            "neighbour change 10.9.0.2 lladdr 02:00:00:00:00:03 dev n0 nud reachable",
            "neighbour delete 10.9.0.2 dev n0",
            "address add 10.9.0.7/24 dev n0",
            "link set n0 mtu 1400",
            "rule add from 10.1.0.0/16 table 100",
        ] {
            ip(change);
            until(change, || epoch(world) > last);
            last = settled_epoch(world);
        }
        ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud reachable");
        until("the neighbour is known", || epoch(world) > last);
        last = settled_epoch(world);
        ip("neighbour change 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud stale");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(epoch(world), last, "a neighbour that stays usable changes nothing");
    });
}

/// The epoch, when it has not been raised for a while: interfaces that come up talk on.
fn settled_epoch(world: &World) -> u32 {
    let mut last = (epoch(world), Instant::now());
    until("the network is quiet", || {
        let now = epoch(world);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(150)
    });
    last.0
}
