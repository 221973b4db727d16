//! What is one for the whole data path.

use super::plain;

/// The only element of the `control` array, memory-mapped by the agent.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Raised by the agent on every change of a route, link or neighbour. The low 16 bits
    /// are never 0, so that an entry with epoch 0 always looks again.
    pub epoch: u32,
    /// Jiffies per second (the kernel's CONFIG_HZ).
    pub hz: u32,
    /// Seed of the hash that picks slots; the same on every node of a cluster.
    pub hash_seed: u32,
    /// First port of the SNAT range, host order.
    pub snat_first: u16,
    /// Number of ports of the SNAT range.
    pub snat_count: u16,
    /// ICMP errors that one CPU may send per second.
    pub errors_per_second: u32,
    /// Not 0: new flows are refused and passed to the stack; old ones are served (`cleanup`).
    pub draining: u32,
    /// 1 if the kernel's route look-up gives the source address (6.7, commit dab4e1f06cab).
    pub fib_source: u32,
    /// Not 0: flows to pods with a veth of their own are opened in fast mode
    /// ([`FLOW_FAST`](super::FLOW_FAST)).
    pub fast_local: u32,
    /// What packets get that no backend is there for: one of the `NO_BACKEND_*` values.
    pub no_backend: u32,
    /// Zero; fills the cache line.
    pub pad: [u32; 7],
}
plain!(Control = 4, 4, 4, 2, 2, 4, 4, 4, 4, 4, 28);

/// They are refused with Port Unreachable, whatever their protocol, as kube-proxy does.
pub const NO_BACKEND_REFUSES: u32 = 0;
/// TCP is answered with a reset; all else is refused with Port Unreachable.
pub const NO_BACKEND_RESETS: u32 = 1;
/// They are dropped.
pub const NO_BACKEND_DROPS: u32 = 2;

/// Some frontend listens on this port.
pub const PORT_FRONTEND: u8 = 1;
/// Some backend on this node has this port.
pub const PORT_BACKEND: u8 = 2;

/// The port is in the SNAT range.
pub const PORT_SNAT: u8 = 4;

/// Ports in one element of the `ports` array.
pub const PORTS_PER_LINE: usize = 64;

/// One element of the `ports` array: the `PORT_*` bits of sixty-four ports. A packet whose port
/// has none is not ours, which is told without a look-up in any hash.
pub type PortLine = [u8; PORTS_PER_LINE];

/// Token bucket of one CPU for ICMP errors that we send ourselves.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorBudget {
    /// Errors left in this second.
    pub tokens: u32,
    /// Jiffies (low 32 bits) when the bucket was last filled.
    pub filled: u32,
}
plain!(ErrorBudget = 4, 4);

impl Control {
    /// The part of the epoch that flows keep; 0 is none's. So long as flows of another epoch are
    /// found before as many epochs have gone by as it tells apart, that part is enough: the sweep
    /// looks at every flow within seconds.
    #[inline(always)]
    pub const fn hop_epoch(&self) -> u16 {
        self.epoch as u16
    }
}

impl ErrorBudget {
    /// Takes a token if there are more than `spared`. The bucket is filled once a second.
    #[inline(always)]
    pub fn spend(&mut self, now: u32, hz: u32, per_second: u32, spared: u32) -> bool {
        if now.wrapping_sub(self.filled) >= hz {
            self.filled = now;
            self.tokens = per_second;
        }
        if self.tokens <= spared {
            return false;
        }
        self.tokens -= 1;
        true
    }
}
