//! System calls that aya and the other crates do not offer, and memory that is shared with the
//! kernel. The only place of the agent where `unsafe` is allowed.

mod allocator;
mod bpf;
mod jiffies;
mod memory;
mod table;
mod test_run;
pub(crate) mod wire;

pub use allocator::give_back_large_blocks;
pub(crate) use allocator::give_back_pages;
pub(crate) use bpf::{
    LinkKind, get_pinned, link_create, link_detach, link_info, link_update, pin, program_info,
};
pub(crate) use jiffies::Jiffies;
pub(crate) use memory::{ReadOnlyArray, SharedArray};
pub(crate) use table::{Batch, Cursor, look_up_batch, program_in};
pub(crate) use test_run::run_program;

use anyhow::Context as _;
use rustix::thread::{MembarrierCommand, membarrier};

/// Waits until every CPU has left the programs that it runs now.
///
/// membarrier's global command waits for an RCU grace period, and a program is an RCU reader. The
/// kernel refuses it where some CPUs run without a tick (`nohz_full`); changing a map of maps
/// waits for the same.
pub(crate) fn wait_for_programs() -> anyhow::Result<()> {
    if membarrier(MembarrierCommand::Global).is_ok() {
        return Ok(());
    }
    table::wait_by_map_of_maps().context(
        "waiting until all CPUs have left the old tables: neither membarrier(2) nor a map of maps \
         does",
    )
}
