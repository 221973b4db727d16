//! The thread that follows the addresses of the node's interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io::PipeReader;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Own;
use crate::dataplane::net::{ADDRESSES, Assigned, Heard, Listener, assigned, names};
use crate::dataplane::worker::Worker;

/// How often it is looked, should nothing be heard.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long changes are gathered: many addresses may come at once.
const GATHERING: Duration = Duration::from_millis(20);
/// The dummy interface that kube-proxy puts all ClusterIPs on in its ipvs mode: they are no addresses
/// of the node.
const IPVS: &str = "kube-ipvs0";

/// Follows the addresses as long as it lives, in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    worker: Worker,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Option<Arc<[Own]>>>);

impl Watch {
    /// Begins with a look; calls `tell` after the addresses have changed.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(tell: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut look = Look::default();
        look.renew(&shared);
        let run = {
            let shared = shared.clone();
            move |stop: &PipeReader| look.follow(&shared, &tell, stop)
        };
        let worker = Worker::start("addresses", "the node's addresses are followed no more", run)?;
        Ok(Self { shared, worker })
    }

    /// The addresses, in order; none if they could not be listed yet.
    #[must_use]
    pub fn own(&self) -> Option<Arc<[Own]>> {
        self.shared.lock().clone()
    }

    /// Looks whether it still follows.
    ///
    /// # Errors
    /// If its thread has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        self.worker.check()
    }
}

impl Shared {
    /// A writer that panicked has left a whole value behind.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<[Own]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept from one look to the next.
#[derive(Debug, Default)]
struct Look {
    before: Option<BTreeSet<Assigned>>,
    is_failing: bool,
}

impl Look {
    /// Until it is time to end. Without a socket to hear by, it looks all the same.
    fn follow(
        mut self,
        shared: &Shared,
        tell: &impl Fn(),
        stop: &PipeReader,
    ) -> anyhow::Result<()> {
        let mut listener = None;
        loop {
            if listener.is_none() {
                listener = Listener::open_to(&ADDRESSES).ok();
            }
            if rests(listener.as_ref(), stop, INTERVAL)? {
                return Ok(());
            }
            std::thread::sleep(GATHERING);
            if listener.as_ref().is_some_and(|listener| !hears_all(listener)) {
                listener = None;
            }
            if self.renew(shared) {
                tell();
            }
        }
    }

    /// Looks; whether anything has changed. What cannot be seen stays as it was.
    fn renew(&mut self, shared: &Shared) -> bool {
        match self.look() {
            Ok(None) => self.is_failing = false,
            Ok(Some(own)) => {
                self.is_failing = false;
                let own: Arc<[Own]> = own.into();
                return shared.lock().replace(own.clone()).as_ref() != Some(&own);
            }
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!("the node's addresses cannot be listed: {error:#}");
            }
            Err(_) => {}
        }
        false
    }

    /// None if they are those of the last look.
    fn look(&mut self) -> anyhow::Result<Option<Vec<Own>>> {
        let now = assigned()?;
        if self.before.as_ref() == Some(&now) {
            return Ok(None);
        }
        let own = own(&now, &names()?);
        self.before = Some(now);
        Ok(Some(own))
    }
}

/// Waits for something to hear; true if it is time to end.
fn rests(listener: Option<&Listener>, stop: &PipeReader, limit: Duration) -> anyhow::Result<bool> {
    let wait = Timespec::try_from(limit)?;
    let mut sources = vec![PollFd::new(stop, PollFlags::IN)];
    sources.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
    match poll(&mut sources, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!sources[0].revents().is_empty()),
        Err(error) => Err(error).context("waiting for rtnetlink"),
    }
}

/// Takes all that there is to hear: that there is something is enough. False if it hears no more.
fn hears_all(listener: &Listener) -> bool {
    loop {
        match listener.hear() {
            Ok(Heard::Silence) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Those that packets from elsewhere may be for, each once.
fn own(assigned: &BTreeSet<Assigned>, names: &BTreeMap<u32, String>) -> Vec<Own> {
    let mut found: BTreeMap<IpAddr, String> = BTreeMap::new();
    for Assigned { interface, address } in assigned {
        let name = names.get(interface).map_or("", String::as_str);
        if reaches_beyond_its_link(*address) && name != IPVS {
            found.entry(*address).or_insert_with(|| name.to_owned());
        }
    }
    found.into_iter().map(|(address, interface)| Own { address, interface }).collect()
}

fn reaches_beyond_its_link(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !is_link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_links_and_cluster_ips_do_not_count() {
        let names = [(1, "lo"), (2, "eth0"), (3, "cni0"), (4, IPVS)];
        let names = names.map(|(number, name)| (number, name.to_owned())).into();
        let all = [
            (1, "127.0.0.1"),
            (1, "::1"),
            (1, "203.0.113.9"),
            (2, "192.0.2.1"),
            (2, "169.254.0.1"),
            (2, "fe80::1"),
            (2, "2001:db8::1"),
            (3, "10.244.1.1"),
            (4, "10.96.0.1"),
            (9, "10.244.1.1"),
        ];
        let assigned = all
            .map(|(interface, address)| Assigned { interface, address: address.parse().unwrap() });
        let own = own(&assigned.into(), &names);
        let own: Vec<_> =
            own.iter().map(|own| format!("{} {}", own.address, own.interface)).collect();
        let expected = ["10.244.1.1 cni0", "192.0.2.1 eth0", "203.0.113.9 lo", "2001:db8::1 eth0"];
        assert_eq!(own, expected);
    }
}
