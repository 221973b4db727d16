//! The addresses of the node's interfaces, as they come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nodeport_agent::addresses::Watch;

use crate::world::{in_own_world, ip, until};

fn told(watch: &Watch) -> Vec<String> {
    let own = watch.own().expect("they can be listed");
    own.iter().map(|own| format!("{} {}", own.address, own.interface)).collect()
}

#[test]
fn addresses_of_interfaces_are_followed() {
    in_own_world(|_| {
        ip("link set lo up");
        let news = Arc::new(AtomicU32::new(0));
        let watch = {
            let news = news.clone();
            Watch::start(move || {
                news.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap()
        };
        let before = told(&watch);
        assert!(before.contains(&"10.9.0.1 n0".to_owned()), "{before:?}");
        assert!(!before.iter().any(|own| own.contains("127.0.0.1") || own.contains("fe80:")));
        assert_eq!(news.load(Ordering::Relaxed), 0, "the first look is nobody's news");

        ip("address add 203.0.113.60/32 dev lo");
        ip("address add 2001:db8:60::1/128 dev n0 nodad");
        until("both have come", || {
            let now = told(&watch);
            ["203.0.113.60 lo", "2001:db8:60::1 n0"].iter().all(|one| now.contains(&(*one).into()))
        });
        until("somebody is told", || news.load(Ordering::Relaxed) > 0);

        // The same address elsewhere: packets for it are the node's all the same.
        ip("address add 203.0.113.60/32 dev n0");
        ip("address del 203.0.113.60/32 dev lo");
        until("it has moved", || told(&watch).contains(&"203.0.113.60 n0".to_owned()));
        ip("address del 203.0.113.60/32 dev n0");
        ip("address del 2001:db8:60::1/128 dev n0");
        until("all is as before", || told(&watch) == before);
        watch.check().unwrap();
    });
}
