//! Every decision on a packet, as pure code.
