//! What the data path knows of an address: the value in `node_addrs4` and `node_addrs6`.

/// NodePorts are served on it.
pub const ADDRESS_SERVED: u32 = 1;
/// An interface of the node has it.
pub const ADDRESS_OWN: u32 = 1 << 1;
/// A frontend names it.
pub const ADDRESS_NAMED: u32 = 1 << 2;
