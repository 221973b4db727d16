//! Programs that are called by us, not by packets.

use std::io;
use std::os::fd::BorrowedFd;

use aya_obj::generated::bpf_cmd;
use nodeport_common::abi::Plain;

use super::bpf::{address, call, number};

/// `bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 3],
}
impl Plain for TestRun {}

/// Runs a program once on `data`, which stands where a frame would, and returns what it returns.
pub(crate) fn run_program<T: Plain>(program: BorrowedFd<'_>, data: &T) -> io::Result<u32> {
    let mut attributes = TestRun {
        program: number(program),
        size_in: size_of::<T>() as u32,
        // Borrowed for the whole call, which only reads it; `Plain` types have no padding.
        data_in: address(std::ptr::from_ref(data)),
        repeat: 1,
        ..TestRun::default()
    };
    call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.result)
}
