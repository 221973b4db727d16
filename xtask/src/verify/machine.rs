//! A virtual machine that boots a kernel, verifies the object as its first process, and ends.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::guest::{ACCEPTED, OBJECT, REFUSED};
use super::initramfs::archive;
use crate::progress::Step;
use crate::setup::apt;
use crate::toolchain::{host_cargo, on_path};
use crate::{command, workspace};

const EMULATOR: &str = "qemu-system-x86_64";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Booting takes seconds, and verifying some hundred milliseconds, even where all is emulated.
const PATIENCE: Duration = Duration::from_secs(180);

/// The image of Debian's kernel for virtual machines of that version, unpacked but not installed.
pub(super) fn debian_kernel(version: &str) -> Result<PathBuf> {
    ensure!(apt::exists(), "only Debian has the kernel packages: use --kernel-image FILE");
    let folder = workspace::target().join("kernels").join(version);
    if let Some(image) = image_in(&folder) {
        return Ok(image);
    }
    let package = apt::newest(&format!("linux-image-{version}."), "-cloud-amd64")?;
    apt::unpack(&package, &folder, "the kernel to verify under")?;
    image_in(&folder).with_context(|| format!("{package} has no /boot/vmlinuz"))
}

fn image_in(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder.join("boot")).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| file.to_string_lossy().contains("vmlinuz"))
}

/// Verifies an object under that kernel.
pub(super) fn verify(object: &Path, image: &Path) -> Result<()> {
    if on_path(EMULATOR).is_none() {
        ensure!(apt::exists(), "{EMULATOR} is not there: install it");
        apt::install(&["qemu-system-x86".to_owned()], "boots other kernels")?;
    }
    let disk = workspace::target().join("kernels/initramfs");
    let object = fs::read(object).with_context(|| format!("read {}", object.display()))?;
    let init = static_self()?;
    let files: [(&str, &[u8]); 2] = [("init", &init), (&OBJECT[1..], &object)];
    fs::create_dir_all(workspace::target().join("kernels")).context("create a folder")?;
    fs::write(&disk, archive(&["proc", "sys"], &files))
        .with_context(|| format!("write {}", disk.display()))?;
    let step = Step::start(&format!("boot {}", image.display()), "to verify under it");
    let console = boot(image, &disk)?;
    judge(&console)?;
    step.done();
    Ok(())
}

/// This program, linked such that it needs nothing else in the file system.
fn static_self() -> Result<Vec<u8>> {
    let folder = workspace::target().join("static");
    let mut cargo = host_cargo();
    cargo.args(["build", "--package", "xtask", "--bin", "xtask", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&folder);
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=debuginfo");
    command::run(&mut cargo)?;
    let program = folder.join(TARGET).join("debug/xtask");
    fs::read(&program).with_context(|| format!("read {}", program.display()))
}

fn boot(image: &Path, disk: &Path) -> Result<String> {
    let mut machine = Command::new(EMULATOR);
    // Emulated: hardware help fails half-way inside some virtual machines, and this is over in
    // seconds anyway. The machine ends when the kernel reboots or panics.
    machine.args(["-accel", "tcg", "-cpu", "max", "-m", "2048"]);
    machine.args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    machine.arg("-kernel").arg(image).arg("-initrd").arg(disk);
    machine.args(["-append", "console=ttyS0 quiet panic=-1"]);
    machine.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = machine.spawn().with_context(|| format!("start {EMULATOR}"))?;
    wait(child)
}

/// What the console showed until the machine ended.
fn wait(mut child: Child) -> Result<String> {
    let mut output = child.stdout.take().context("the machine's console")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.read_to_end(&mut text).map(|_| text);
        // Nobody listens after the time-out.
        let _ = sender.send(read);
    });
    let Ok(text) = receiver.recv_timeout(PATIENCE) else {
        // It may have ended just now.
        let _ = child.kill();
        bail!("the virtual machine did not end within {PATIENCE:?}");
    };
    let ended = child.wait_with_output().context("wait for the virtual machine")?;
    let errors = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{EMULATOR} failed ({}): {}", ended.status, errors.trim());
    Ok(String::from_utf8_lossy(&text.context("read the console")?).replace('\r', ""))
}

fn judge(console: &str) -> Result<()> {
    let from_kernel = console.find("kernel ").map_or(console, |at| &console[at..]);
    if let Some((report, _)) = from_kernel.split_once(ACCEPTED) {
        println!("{}", report.trim());
        return Ok(());
    }
    if let Some((report, _)) = from_kernel.split_once(REFUSED) {
        bail!("{}", report.trim());
    }
    bail!("the virtual machine ended without a verdict; its console:\n{}", console.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verdict_counts() {
        assert!(judge("boot\nkernel 6.1\n┌─┐\nverify: accepted\n").is_ok());
        let refused =
            judge("boot\nkernel 6.1\nerror: load x\nverify: refused\n[7.3] reboot\n").unwrap_err();
        assert_eq!(refused.to_string(), "kernel 6.1\nerror: load x");
        assert!(judge("Kernel panic").unwrap_err().to_string().contains("Kernel panic"));
    }
}
