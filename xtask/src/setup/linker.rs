//! `bpf-linker`, of the version that fits the compiler, in a folder of this checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::apt;
use crate::progress::{Step, skipped};
use crate::toolchain::{Pins, Toolchain, on_path, path_with};
use crate::{command, workspace};

const NAME: &str = "bpf-linker";

/// The folder of a linker that fits, built if there is none.
pub(super) fn ensure(pins: &Pins, toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(dir) = find(pins, toolchain)? {
        skipped(NAME, &dir.display().to_string());
        return Ok(dir);
    }
    let root = root(pins, toolchain)?;
    build(pins, toolchain, &root)?;
    Ok(root.join("bin"))
}

/// The folder of a linker that fits, if there is one.
pub(super) fn find(pins: &Pins, toolchain: &Toolchain) -> Result<Option<PathBuf>> {
    let own = root(pins, toolchain)?.join("bin");
    if own.join(NAME).is_file() {
        return Ok(Some(own));
    }
    let on_path = on_path(NAME).filter(|program| fits(program, pins, toolchain));
    Ok(on_path.and_then(|program| program.parent().map(Path::to_path_buf)))
}

/// One folder for each pair of linker and LLVM, so that a newer compiler gets a newer linker.
fn root(pins: &Pins, toolchain: &Toolchain) -> Result<PathBuf> {
    let name = match toolchain {
        Toolchain::System => {
            format!("{NAME}-{}-llvm-{}", pins.system.bpf_linker, toolchain.llvm_major()?)
        }
        Toolchain::Rustup(nightly) => format!("{NAME}-{}-{nightly}", pins.rustup.bpf_linker),
    };
    Ok(workspace::tools().join(name))
}

/// A linker from elsewhere must be of the pinned version and built with the compiler's LLVM.
fn fits(program: &Path, pins: &Pins, toolchain: &Toolchain) -> bool {
    let Toolchain::System = toolchain else { return false };
    let version = command::capture(Command::new(program).arg("--version"));
    let libraries = command::capture(Command::new("ldd").arg(program));
    let (Ok(version), Ok(libraries), Ok(llvm)) = (version, libraries, toolchain.llvm_major())
    else {
        return false;
    };
    version.trim() == format!("{NAME} {}", pins.system.bpf_linker)
        && libraries.contains(&format!("libLLVM.so.{llvm}"))
}

fn build(pins: &Pins, toolchain: &Toolchain, root: &Path) -> Result<()> {
    let mut cargo = toolchain.cargo();
    cargo.args(["install", NAME, "--locked", "--root"]).arg(root);
    cargo.arg("--target-dir").arg(workspace::tools().join("build"));
    match toolchain {
        Toolchain::System => with_system_llvm(&mut cargo, pins, toolchain.llvm_major()?)?,
        Toolchain::Rustup(_) => {
            cargo.args(["--version", &pins.rustup.bpf_linker]);
        }
    }
    let step = Step::start("cargo install bpf-linker", "rustc calls it to link for BPF");
    command::logged(&mut cargo, &step, "bpf-linker.log")?;
    step.done();
    Ok(())
}

fn with_system_llvm(cargo: &mut Command, pins: &Pins, llvm: u32) -> Result<()> {
    let packages =
        [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "libzstd-dev".into()];
    if apt::exists() {
        apt::install(&packages, "bpf-linker is built with the LLVM of the compiler")?;
    }
    // Its build script takes the first llvm-config that it meets on the path.
    let path = path_with(&[PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin"))]);
    let feature = format!("llvm-{llvm}");
    cargo.env("PATH", path).args(["--version", &pins.system.bpf_linker]);
    cargo.args(["--no-default-features", "--features", &feature]);
    Ok(())
}
