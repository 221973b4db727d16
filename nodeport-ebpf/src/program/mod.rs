//! The entry points: one for each hook.

mod expire;
mod tc;
mod xdp;
