//! Programs for `cargo xtask bench packet`: the walk as the real programs have it, on a packet
//! that is made fresh before each run, and what it is measured beside.
//!
//! `BPF_PROG_TEST_RUN` gives a program the same bytes again and again, as it left them itself. So
//! each program here first writes the tuple, the TTL and the checksums of the next packet; the
//! `fresh` programs do nothing else, which shows what that costs.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the target has no other compare-exchange")]
#![expect(dead_code, reason = "the benchmark needs only a part of what the programs have")]

mod bench {
    pub(crate) mod fill;
    pub(crate) mod fresh;
    pub(crate) mod program;
    pub(crate) mod send;
}
mod env;
mod every;
mod maps;
mod packet;
mod route;
mod table;
mod verdict;
