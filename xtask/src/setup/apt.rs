//! Debian packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::command;
use crate::progress::Step;
use crate::toolchain::{is_recent, on_path};

const LISTS: &str = "/var/lib/apt/lists";
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Whether this machine takes packages from apt.
pub(crate) fn exists() -> bool {
    on_path("apt-get").is_some() && on_path("dpkg-query").is_some()
}

/// Whether apt has a compiler package that is new enough for the workspace.
pub(super) fn offers_compiler(package: &str) -> Result<bool> {
    if !exists() {
        return Ok(false);
    }
    if lists_are_old() && geteuid().is_root() {
        update()?;
    }
    let policy = command::capture(Command::new("apt-cache").args(["policy", package]))?;
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(candidate.is_some_and(is_recent))
}

/// Installs those that are missing.
pub(crate) fn install(packages: &[String], why: &str) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    require_root(&missing)?;
    if lists_are_old() {
        update()?;
    }
    let step = Step::start(&format!("apt-get install {}", missing.join(" ")), why);
    let mut command = apt_get();
    command.args(["install", "-y", "--no-install-recommends"]).args(&missing);
    command::logged(&mut command, &step, "apt-install.log")?;
    step.done();
    Ok(())
}

/// The newest package whose name has that beginning and end, with a version in between.
pub(crate) fn newest(prefix: &str, suffix: &str) -> Result<String> {
    let mut search = Command::new("apt-cache");
    let found = command::capture(search.args(["pkgnames", prefix]))?;
    let names = found.lines().filter(|name| name.ends_with(suffix));
    let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
    newest.with_context(|| format!("apt knows no package {prefix}…{suffix}: try apt-get update"))
}

/// Fetches a package and unpacks it into a folder, without installing it.
pub(crate) fn unpack(package: &str, folder: &Path, why: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let step = Step::start(&format!("apt-get download {package}"), why);
    let mut download = apt_get();
    download.args(["download", package]).current_dir(folder);
    command::logged(&mut download, &step, "apt-download.log")?;
    step.done();
    let files = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let is_package = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "deb");
    let file = files.flatten().map(|entry| entry.path()).find(is_package);
    let file = file.with_context(|| format!("apt-get download {package} left no file"))?;
    command::run(Command::new("dpkg-deb").arg("--extract").args([&file, folder]))?;
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

/// 6.1.0-9 comes before 6.1.0-56.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The packages that are not installed.
pub(super) fn missing(packages: &[String]) -> Result<Vec<String>> {
    let format = "${Package} ${db:Status-Status}\n";
    // It exits with 1 if it does not know one of them, and prints the others all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", format])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("start `dpkg-query`")?;
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_there =
        |package: &String| known.lines().any(|line| *line == format!("{package} installed"));
    Ok(packages.iter().filter(|package| !is_there(package)).cloned().collect())
}

fn require_root(packages: &[String]) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "these packages are missing and only root can install them; type:\n  \
         sudo apt-get update && sudo apt-get install -y {}\nand then the same command again",
        packages.join(" ")
    );
}

fn update() -> Result<()> {
    let step = Step::start("apt-get update", "the package lists are empty or more than a day old");
    command::logged(apt_get().arg("update"), &step, "apt-update.log")?;
    step.done();
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // A machine that has just started may be busy with its own updates.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    command
}

fn lists_are_old() -> bool {
    let age = fs::metadata(LISTS).and_then(|lists| lists.modified()).ok();
    let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
    !has_lists(Path::new(LISTS)) || age.is_none_or(|age| age > LISTS_MAX_AGE)
}

fn has_lists(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_archive_has_is_missing() {
        if !exists() {
            return;
        }
        let packages = ["dpkg".to_owned(), "nodeport-no-such-package".to_owned()];
        assert_eq!(missing(&packages).unwrap(), ["nodeport-no-such-package"]);
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(numbers("linux-image-6.1.0-9-cloud") < numbers("linux-image-6.1.0-56-cloud"));
    }

    #[test]
    fn a_folder_without_package_lists_is_empty() {
        assert!(!has_lists(Path::new("/proc/self/fdinfo")));
        assert!(!has_lists(Path::new("/no/such/folder")));
    }
}
