//! Cases, and how one is run by both twins.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nodeport_common::abi::{Flow, FlowKey, ServiceStats};
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::host::World;
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Net, faults, key};

use crate::host;
use crate::kernel::{Kernel, Ran};
use crate::network::OUT;
use crate::state::State;

/// A frame, and what must become of it.
pub(crate) struct Step {
    hook: Hook,
    frame: Vec<u8>,
    gso_size: u16,
    action: Action,
    /// The frame afterwards; `None` if it is not to be looked at.
    out: Option<Vec<u8>>,
}

impl Step {
    /// The frame is passed as it came.
    pub(crate) fn passed(hook: Hook, frame: Vec<u8>) -> Self {
        Self { hook, out: Some(frame.clone()), frame, gso_size: 0, action: Action::Pass }
    }

    /// The frame is dropped.
    pub(crate) fn dropped(hook: Hook, frame: &Draft) -> Self {
        Self { hook, frame: frame.build(), gso_size: 0, action: Action::Drop, out: None }
    }

    /// The frame becomes another.
    pub(crate) fn becomes(hook: Hook, frame: &Draft, action: Action, out: &Draft) -> Self {
        let (frame, out) = (frame.build(), out.build());
        assert_eq!(faults(&out), Vec::<String>::new(), "the table itself");
        Self { hook, frame, gso_size: 0, action, out: Some(out) }
    }

    /// The kernel will cut the frame into segments with so much payload.
    pub(crate) fn joined(self, gso_size: u16) -> Self {
        Self { gso_size, ..self }
    }
}

/// What happens next.
pub(crate) enum Event {
    /// A frame arrives or leaves.
    Frame(Step),
    /// The agent writes something.
    Write(fn(&mut State)),
    /// A half is lost, as one that newcomers push out.
    Lose(Half),
}

/// A half of a flow: protocol, source, destination.
pub(crate) type Half = (u8, SocketAddr, SocketAddr);

impl From<Step> for Event {
    fn from(step: Step) -> Self {
        Self::Frame(step)
    }
}

/// A named sequence of frames, from empty tables.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) events: Vec<Event>,
}

/// The programs in the kernel, and the core on the host.
pub(crate) struct Twins {
    kernel: Kernel,
    host: World,
    state: State,
}

impl Twins {
    pub(crate) fn new(object: &[u8]) -> Self {
        let (kernel, host) = (Kernel::new(object), World::default());
        Self { kernel, host, state: State::new() }
    }

    /// The programs in the kernel alone.
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The core on the host alone.
    pub(crate) fn host(&self) -> &World {
        &self.host
    }

    /// Empties the tables and writes `state`.
    pub(crate) fn reset(&mut self, state: State) {
        self.kernel.clear();
        self.host = World::default();
        self.host.now.set(1_000_000);
        self.write(state);
    }

    /// Writes `state`; flows stay.
    pub(crate) fn write(&mut self, state: State) {
        self.kernel.fill(&state);
        host::fill(&self.host, &state);
        self.state = state;
    }

    /// Runs a case, which begins with what [`Twins::reset`] leaves.
    pub(crate) fn run(&mut self, case: &Case) {
        for (index, event) in case.events.iter().enumerate() {
            match event {
                Event::Write(change) => {
                    let mut state = self.state.clone();
                    change(&mut state);
                    self.write(state);
                }
                Event::Frame(step) => self.step(index, step),
                Event::Lose(half) => self.lose(*half),
            }
        }
    }

    fn lose(&mut self, half: Half) {
        if half.1.is_ipv4() { self.lose_of::<V4>(half) } else { self.lose_of::<V6>(half) }
    }

    fn lose_of<F: Net>(&mut self, (protocol, src, dst): Half) {
        let key = key::<F>(protocol, src, dst);
        assert!(F::maps(&self.host).flows.remove(&key), "no such half");
        assert!(self.kernel.table::<F>().remove(&key), "no such half in the kernel");
    }

    fn step(&mut self, index: usize, step: &Step) {
        let Step { hook, frame, gso_size, action, out } = step;
        let what = format!("event {index}");
        let ran = self.kernel.run(*hook, frame, *gso_size).expect("the kernel takes the frame");
        let (host, bytes) = host::run(&self.host, *hook, frame, *gso_size);
        assert_eq!(host, *action, "verdict of the core, {what}");
        if let Some(out) = out {
            assert_eq!(hex(&bytes), hex(out), "frame of the core, {what}");
        }
        self.compare(&what, *hook, &ran, (host, &bytes));
    }

    /// Runs a frame in both; `None` if the kernel does not take it for a test.
    pub(crate) fn both(&self, what: &str, hook: Hook, frame: &[u8]) -> Option<(Action, Vec<u8>)> {
        let ran = self.kernel.run(hook, frame, 0)?;
        let (action, bytes) = host::run(&self.host, hook, frame, 0);
        self.compare(what, hook, &ran, (action, &bytes));
        Some((action, bytes))
    }

    fn compare(&self, what: &str, hook: Hook, ran: &Ran, (action, bytes): (Action, &[u8])) {
        let counters = (self.kernel.counters(), self.host.counters());
        assert_eq!(
            ran.code,
            code(hook, action),
            "verdict of the kernel, {what}: {action:?}, counters {counters:?}"
        );
        assert_eq!(ran.done, hook == Hook::Xdp && action == Action::Stack, "{what}");
        if action != Action::Drop {
            assert_eq!(hex(&ran.bytes), hex(bytes), "frame of the kernel, {what}");
        }
        assert_eq!(counters.0, counters.1, "counters of the kernel, {what}");
        let mut stats = self.host.stats.borrow().clone();
        stats.retain(|_, stats| *stats != ServiceStats::default());
        assert_eq!(self.kernel.stats(), stats, "{what}");
        self.compare_tables::<V4>(what);
        self.compare_tables::<V6>(what);
    }

    fn compare_tables<F: Net>(&self, what: &str) {
        let host = F::maps(&self.host).flows.all().into_iter().collect();
        let (kernel, host) = (timeless(self.kernel.flows::<F>()), timeless(host));
        assert_eq!(kernel, host, "flows of the kernel, {what}");
    }
}

/// Flows without what the clocks, which are two, say.
fn timeless<A: Ord>(flows: BTreeMap<FlowKey<A>, Flow<A>>) -> BTreeMap<FlowKey<A>, Flow<A>> {
    let still = |(key, flow)| (key, Flow { last_seen: 0, created: 0, ..flow });
    flows.into_iter().map(still).collect()
}

/// What the kernel calls a verdict.
fn code(hook: Hook, action: Action) -> i32 {
    match (hook, action) {
        (Hook::Xdp, Action::Pass | Action::Stack | Action::Neighbour(_) | Action::Pod(_)) => 2,
        (Hook::Xdp, Action::Drop) => 1,
        (Hook::Xdp, Action::Send(OUT) | Action::Back(_)) => 3,
        (Hook::Xdp, Action::Send(_)) => 4,
        (_, Action::Pass | Action::Stack) => -1,
        (_, Action::Drop) => 2,
        (_, Action::Send(_) | Action::Back(_) | Action::Neighbour(_) | Action::Pod(_)) => 7,
    }
}

/// Bytes as one reads them in a failed comparison.
fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .map(|line| line.iter().map(|b| format!("{b:02x} ")).collect::<String>() + "\n")
        .collect()
}
