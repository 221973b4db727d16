//! Source addresses and ports, none of which comes twice within a long time.

use std::net::{IpAddr, SocketAddr};

const FIRST_PORT: u16 = 2_000;
const PORTS: u32 = 63_000;

/// Where the client's next flows come from.
#[derive(Clone, Debug)]
pub(in super::super) struct Flows {
    addresses: Vec<IpAddr>,
    next: u32,
}

impl Flows {
    /// Of these addresses in turn; there must be one.
    pub(in super::super) fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, next: 0 }
    }
}

impl Iterator for Flows {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let count = self.addresses.len() as u32;
        let (number, address) = (self.next / count, self.next % count);
        self.next = self.next.wrapping_add(1);
        let port = FIRST_PORT + (number % PORTS) as u16;
        Some(SocketAddr::new(*self.addresses.get(address as usize)?, port))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_flow_comes_twice_before_all_have_come() {
        let addresses = (1..=8).map(|last| IpAddr::from([10, 20, 1, last])).collect();
        let all = PORTS as usize * 8;
        let flows: Vec<_> = Flows::new(addresses).take(all + 1).collect();
        assert_eq!(flows[..all].iter().collect::<HashSet<_>>().len(), all);
        assert_eq!(flows[all], flows[0]);
    }
}
