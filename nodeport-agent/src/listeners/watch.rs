//! The thread that looks for listeners.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::diag::Listing;
use super::owner::{KUBE_PROXY_PORTS, Owner};
use super::{Socket, cgroups, processes};
use crate::model::Protocol;
use crate::plan::NodePort;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks, whatever is asked for meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that matters, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The socket.
    pub socket: Socket,
    /// Whose it is.
    pub owner: Arc<Owner>,
}

/// Looks for listeners as long as it lives, in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Ports that services have, or had.
    wanted: HashSet<NodePort>,
    /// Ports at which something listened at the last look.
    heard: HashSet<NodePort>,
    /// How often something was asked for, and what of it has been looked for.
    asked: u64,
    answered: u64,
    found: Arc<[Found]>,
    ends: bool,
}

impl Watch {
    /// Begins; calls `tell` after what is found has changed.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(tell: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut look = Look::default();
        look.renew();
        shared.lock().heard = look.heard();
        let run = {
            let shared = shared.clone();
            move || shared.run(look, tell)
        };
        let thread = std::thread::Builder::new().name("listeners".to_owned()).spawn(run);
        let thread = thread.context("starting the thread that looks for listeners")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// These ports matter from now on. Returns whether something listened at one that is new, when it
    /// was looked last.
    pub fn ask(&self, ports: impl IntoIterator<Item = NodePort>) -> bool {
        let mut state = self.shared.lock();
        let State { wanted, heard, .. } = &mut *state;
        let new: Vec<_> = ports.into_iter().filter(|port| wanted.insert(*port)).collect();
        let is_heard = new.iter().any(|port| heard.contains(port));
        if !new.is_empty() {
            state.asked += 1;
            self.shared.changed.notify_all();
        }
        is_heard
    }

    /// Waits until all has been looked for that was asked for, or for so long.
    pub fn settle(&self, limit: Duration) {
        let state = self.shared.lock();
        let asked = state.asked;
        let waits = |state: &mut State| state.answered < asked && !state.ends;
        drop(self.shared.changed.wait_timeout_while(state, limit, waits));
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> Arc<[Found]> {
        self.shared.lock().found.clone()
    }

    /// Looks whether it still looks.
    ///
    /// # Errors
    /// If its thread has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        ensure!(is_alive, "listeners are looked for no more: start the agent again");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A writer that panicked has left whole values behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut look: Look, tell: impl Fn()) {
        let mut last = Instant::now();
        while let Some(asked) = self.rest(last) {
            last = Instant::now();
            look.renew();
            let sockets = self.matter(&look);
            let found = look.name(sockets);
            if self.publish(found, look.heard(), asked) {
                tell();
            }
        }
    }

    /// Waits until it is time to look; the number of what has been asked for until then. None if it is
    /// time to end.
    fn rest(&self, last: Instant) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let pause = if state.asked > state.answered { PAUSE } else { INTERVAL };
            let left = pause.saturating_sub(last.elapsed());
            if state.ends {
                return None;
            }
            if left.is_zero() {
                return Some(state.asked);
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The sockets at ports that services have.
    fn matter(&self, look: &Look) -> Vec<Socket> {
        let state = self.lock();
        let matters = |socket: &&Socket| state.wanted.contains(&port(socket));
        look.lasting().filter(matters).cloned().collect()
    }

    /// Whether anything is new.
    fn publish(&self, found: Vec<Found>, heard: HashSet<NodePort>, asked: u64) -> bool {
        let mut state = self.lock();
        let is_new = *state.found != *found;
        if is_new {
            state.found = found.into();
        }
        (state.heard, state.answered) = (heard, asked);
        self.changed.notify_all();
        is_new
    }
}

const fn port(socket: &Socket) -> NodePort {
    (socket.at.port(), socket.protocol)
}

/// What a look shows, and what is kept from one to the next.
#[derive(Debug, Default)]
struct Look {
    listing: Listing,
    /// Sockets of UDP, by inode, as they were before this look and at it. None before the first two.
    before: Option<HashSet<u32>>,
    now: Option<HashSet<u32>>,
    owners: HashMap<(u32, Option<u64>), Arc<Owner>>,
    is_failing: bool,
}

impl Look {
    /// Looks. What cannot be seen stays as it was.
    fn renew(&mut self) {
        match self.listing.renew() {
            Ok(()) if std::mem::take(&mut self.is_failing) => {
                tracing::info!("listeners of the node can be looked for again");
            }
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!("listeners of the node cannot be looked for: {error:#}");
            }
            Err(_) => {}
        }
        let udp = self.listing.sockets().filter(|socket| socket.protocol == Protocol::Udp);
        let now = udp.map(|socket| socket.inode).collect();
        self.before = self.now.replace(now);
    }

    fn heard(&self) -> HashSet<NodePort> {
        self.listing.sockets().map(port).collect()
    }

    /// Without sockets of UDP that were opened a moment ago: most of them wait for one answer, and are
    /// gone soon.
    fn lasting(&self) -> impl Iterator<Item = &Socket> {
        let was_there = |socket: &Socket| {
            self.before.as_ref().is_none_or(|before| before.contains(&socket.inode))
        };
        self.listing
            .sockets()
            .filter(move |socket| socket.protocol == Protocol::Tcp || was_there(socket))
    }

    /// Finds out whose they are, unless that is known.
    fn name(&mut self, mut sockets: Vec<Socket>) -> Vec<Found> {
        sockets.sort_unstable();
        let known = std::mem::take(&mut self.owners);
        let is_named = |socket: &&Socket| {
            known.get(&(socket.inode, socket.cgroup)).is_some_and(|owner| is_current(owner))
        };
        let (named, new): (Vec<_>, Vec<_>) = sockets.iter().partition(is_named);
        let mut owners = self.owners_of(&new);
        owners.extend(named.into_iter().filter_map(|socket| {
            known.get_key_value(&(socket.inode, socket.cgroup)).map(|(key, it)| (*key, it.clone()))
        }));
        self.owners = owners;
        let found = sockets.into_iter().filter_map(|socket| {
            let owner = self.owners.get(&(socket.inode, socket.cgroup))?.clone();
            Some(Found { socket, owner })
        });
        found.collect()
    }

    fn owners_of(&self, sockets: &[&Socket]) -> HashMap<(u32, Option<u64>), Arc<Owner>> {
        if sockets.is_empty() {
            return HashMap::new();
        }
        let inodes =
            sockets.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
        let holders = processes::holders(&inodes);
        let paths = cgroups::paths(&sockets.iter().filter_map(|socket| socket.cgroup).collect());
        let of_kube_proxy = self.groups_of_kube_proxy();
        let owner = |socket: &&Socket| Owner {
            process: holders.get(&socket.inode).cloned(),
            cgroup: socket.cgroup.and_then(|id| paths.get(&id).cloned()),
            uid: socket.uid,
            is_beside_kube_proxy: socket.cgroup.is_some_and(|id| of_kube_proxy.contains(&id)),
        };
        sockets
            .iter()
            .map(|socket| ((socket.inode, socket.cgroup), Arc::new(owner(socket))))
            .collect()
    }

    /// Control groups that listen on both of kube-proxy's own ports.
    fn groups_of_kube_proxy(&self) -> HashSet<u64> {
        let at = |wanted: u16| -> HashSet<u64> {
            let sockets = self.listing.sockets();
            let there = sockets.filter(|socket| port(socket) == (wanted, Protocol::Tcp));
            there.filter_map(|socket| socket.cgroup).collect()
        };
        let [health, metrics] = KUBE_PROXY_PORTS.map(at);
        health.intersection(&metrics).copied().collect()
    }
}

/// Whether it is so still: a process may end, and leave a socket to another one.
fn is_current(owner: &Owner) -> bool {
    owner.process.as_ref().is_none_or(processes::is_there)
}
