//! A nightly from rustup, for machines whose packages offer no compiler that is new enough.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;
use crate::progress::Step;
use crate::toolchain::{Toolchain, on_path};

/// Installs the pinned nightly with the sources of `core`.
pub(super) fn install(nightly: &str) -> Result<Toolchain> {
    let call = format!("rustup toolchain install {nightly} --profile minimal --component rust-src");
    if on_path("rustup").is_none() {
        bail!(
            "building for BPF needs a compiler with the sources of core: neither apt offers one \
             (rustc-web, rust-web-src) nor is rustup there; install rustup, then type:\n  {call}"
        );
    }
    if env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0") {
        bail!("RUSTUP_AUTO_INSTALL=0 forbids to install a toolchain unasked; type:\n  {call}");
    }
    let step = Step::start(&format!("rustup {nightly}"), "compiler with the sources of core");
    let mut command = Command::new("rustup");
    command.args(call.split(' ').skip(1));
    command::logged(&mut command, &step, "rustup.log")?;
    step.done();
    Ok(Toolchain::Rustup(nightly.to_owned()))
}
