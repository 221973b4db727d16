//! The entry points: one for each hook.

mod tc;
mod xdp;
