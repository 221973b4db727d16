//! Every decision on a packet, as pure code.
//!
//! The walk of a packet, in order:
//!
//! 1. [`parse`]: Ethernet, VLAN tags, IP with what may follow it, ports; or the packet that an
//!    ICMP error quotes. What cannot be parsed goes up the stack as it came.
//! 2. [`walk`]: a look at the port tells most packets that are none of our business. Then the
//!    flow: one look-up, one read of the backend's generation, [`rewrite`], gone.
//! 3. [`track`]: flows that are young, closing, idle, or lost something: the state machine
//!    ([`state`]), the partner, the next hop.
//! 4. [`open`]: no flow yet. Frontend, backend by Maglev ([`maglev`]), the way there, a source
//!    port, both halves.
//! 5. [`fragment`]: fragments, which follow the first one of their packet.
//! 6. [`icmp_error`] sends errors along their flow, [`icmp_reply`] makes our own, [`reset`] the resets of
//!    connections whose backend is gone ([`gone`]).
//!
//! [`env`](mod@env) has the traits that a walk is written against, [`family`] what differs between IPv4
//! and IPv6.

pub mod checksum;
pub mod choice;
pub mod env;
pub mod expiry;
pub mod family;
pub mod flow;
pub mod fragment;
pub mod gone;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod icmp_error;
pub mod icmp_reply;
pub mod maglev;
pub mod no_backend;
pub mod open;
pub mod own;
pub mod parse;
pub mod proof;
pub mod reset;
pub mod rewrite;
pub mod snat;
pub mod state;
pub mod table;
pub mod track;
pub mod verdict;
pub mod walk;
pub mod work;
