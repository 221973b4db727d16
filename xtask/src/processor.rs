//! On which processors threads run.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Puts the calling thread on one processor.
///
/// # Errors
/// If there is none of that number, or it may not run there.
pub fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).with_context(|| format!("there is no processor {processor}"))?;
    sched_setaffinity(this(), &set).with_context(|| format!("run on processor {processor}"))
}

/// Those on which the calling thread may run.
///
/// # Errors
/// If the kernel does not say.
pub fn usable() -> Result<Vec<usize>> {
    let set = sched_getaffinity(this()).context("ask on which processors this thread may run")?;
    Ok((0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap_or(false)).collect())
}

/// The calling thread, to the kernel.
fn this() -> Pid {
    Pid::from_raw(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_where_it_is_put() {
        let of_thread = || {
            let last = *usable().unwrap().last().unwrap();
            pin(last).unwrap();
            assert_eq!(usable().unwrap(), [last]);
        };
        std::thread::scope(|scope| scope.spawn(of_thread).join().unwrap());
    }

    #[test]
    fn a_processor_that_is_not_there_is_named() {
        let error = pin(CpuSet::count()).unwrap_err();
        assert!(format!("{error:#}").contains(&CpuSet::count().to_string()), "{error:#}");
    }
}
