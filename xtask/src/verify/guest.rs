//! The first and only process of the virtual machine in which programs are verified.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Error, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where the object is in the machine.
pub(super) const OBJECT: &str = "/nodeport.o";
/// The beginning of the last line, when every program was loaded.
pub(super) const ACCEPTED: &str = "verify: accepted";
/// The beginning of the last line, when one was not.
pub(super) const REFUSED: &str = "verify: refused";

/// Verifies the object, says what came of it on the console, and ends the machine.
///
/// # Panics
/// If the kernel cannot end the machine; it then panics itself and the machine ends as well.
pub fn run() -> ! {
    match prepare().and_then(|()| super::verify(Path::new(OBJECT))) {
        Ok(programs) => println!("{}\n{ACCEPTED}", super::table(&programs)),
        Err(error) => println!("{}\n{REFUSED}", text(&error)),
    }
    // The machine is started such that a reboot ends it; that works without ACPI.
    let error = reboot(RebootMode::RB_AUTOBOOT).expect_err("a reboot does not return");
    panic!("reboot: {error}");
}

fn prepare() -> Result<()> {
    for (kind, folder) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        fs::create_dir_all(folder).with_context(|| format!("create {folder}"))?;
        mount(Some(kind), folder, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {folder}"))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the release")?;
    println!("kernel {}", release.trim());
    Ok(())
}

fn text(error: &Error) -> String {
    format!("error: {error:#}")
}
