//! Keeps the kernel from giving our ports to the node's own connections.
//!
//! Of the SNAT ports and the nodePorts, those that lie in `net.ipv4.ip_local_port_range` are added to
//! `net.ipv4.ip_local_reserved_ports`, which holds for both families and for the network namespace of
//! the thread. What was added is noted in a file before it is, so that [`restore`] takes away just
//! that, however the agent has ended.

mod set;

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::pins::own_namespace;
use crate::config::PortRange;
use crate::run_dir;
use set::PortSet;

/// Name of the file in the run directory.
const FILE: &str = "reserved-ports.json";
/// Changes with every start of the machine, as which all reserved ports are forgotten.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Where the settings of the namespace are.
const SETTINGS: &str = "/proc/sys/net/ipv4";

/// Ports that shall be kept free.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    ranges: Vec<PortRange>,
    settings: Settings,
    run_dir: PathBuf,
}

/// The kernel's settings of ports.
#[derive(Clone, Debug)]
struct Settings {
    folder: PathBuf,
}

/// What we have added, and to what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    boot: String,
    /// Inode of the network namespace.
    namespace: u64,
    added: PortSet,
}

/// What is to be done so that the ports are kept free.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// What will be ours.
    added: PortSet,
    /// All that shall be reserved; none if it is.
    reserved: Option<PortSet>,
}

impl Reservation {
    pub(super) fn new(ranges: Vec<PortRange>, run_dir: &Path) -> Self {
        Self { ranges, settings: Settings::own(), run_dir: run_dir.to_owned() }
    }

    /// Reserves what is not reserved, as by a setting that came or was overwritten since.
    ///
    /// # Errors
    /// If the kernel may give one of the ports away; says what to do about it.
    pub(super) fn keep(&self) -> anyhow::Result<()> {
        // Where these settings are hidden, there is nothing to compare with.
        let Some((local, reserved)) = self.settings.read()? else { return Ok(()) };
        let wanted = &self.ranges.iter().copied().collect::<PortSet>() & &local;
        let before = Note::load(&self.run_dir)?;
        let added = before.as_ref().map(|note| note.added.clone()).unwrap_or_default();
        let step = plan(&wanted, &reserved, &added);
        let Some(all) = &step.reserved else { return Ok(()) };
        self.reserve(&step.added, all).with_context(|| {
            let first = (&wanted - &reserved).first().unwrap_or_default();
            format!(
                "the kernel may give port {first} to connections of the node's own, whose answers \
                 would be taken for ours: keep it free with `sysctl -w \
                 net.ipv4.ip_local_reserved_ports={all}`, or choose --snat-ports and \
                 --node-port-range outside net.ipv4.ip_local_port_range"
            )
        })?;
        tracing::info!("net.ipv4.ip_local_reserved_ports: added {}", &wanted - &reserved);
        Ok(())
    }

    /// Notes what is added, and adds it.
    fn reserve(&self, added: &PortSet, all: &PortSet) -> anyhow::Result<()> {
        let before = Note::load(&self.run_dir)?;
        Note::here(added.clone())?.save(&self.run_dir)?;
        let written = self.settings.write(all);
        if written.is_err() {
            match before {
                Some(note) => note.save(&self.run_dir)?,
                None => Note::remove(&self.run_dir).map(|_| ())?,
            }
        }
        written
    }
}

/// Takes what was added away again; says what it did, if there was anything.
pub(super) fn restore(run_dir: &Path) -> anyhow::Result<Option<String>> {
    restore_in(run_dir, &Settings::own())
}

fn restore_in(run_dir: &Path, settings: &Settings) -> anyhow::Result<Option<String>> {
    let note = Note::load(run_dir)?;
    let mut done = None;
    if let Some(Note { added, .. }) = note
        && let Some((_, reserved)) = settings.read()?
        && !(&reserved & &added).is_empty()
    {
        let ours = &reserved & &added;
        settings.write(&(&reserved - &ours)).with_context(|| {
            format!("net.ipv4.ip_local_reserved_ports still has {ours}, which the agent added")
        })?;
        done = Some(format!("removed {ours} from net.ipv4.ip_local_reserved_ports"));
    }
    let removed = Note::remove(run_dir)?;
    Ok(done.or(removed))
}

/// What to do so that the `wanted` ports are among the `reserved` ones, of which `added` are ours. Ports
/// of an earlier run's range stay ours, and reserved: flows may have them yet.
fn plan(wanted: &PortSet, reserved: &PortSet, added: &PortSet) -> Step {
    let missing = wanted - reserved;
    let added = &(added & reserved) | &missing;
    Step { added, reserved: (!missing.is_empty()).then(|| reserved | &missing) }
}

impl Settings {
    fn own() -> Self {
        Self { folder: SETTINGS.into() }
    }

    fn reserved(&self) -> PathBuf {
        self.folder.join("ip_local_reserved_ports")
    }

    /// The ports that the kernel gives away by itself, and those that it keeps free; none if they are
    /// hidden.
    fn read(&self) -> anyhow::Result<Option<(PortSet, PortSet)>> {
        let range = self.folder.join("ip_local_port_range");
        let reserved = self.reserved();
        let Some((local, listed)) = text(&range)?.zip(text(&reserved)?) else { return Ok(None) };
        let what = || format!("{} holds {local:?}", range.display());
        let bounds: Vec<&str> = local.split_whitespace().collect();
        let local = bounds.join("-").parse().with_context(what)?;
        let listed = listed.parse().with_context(|| reserved.display().to_string())?;
        Ok(Some((local, listed)))
    }

    /// Lets the kernel keep these ports free, and no others.
    fn write(&self, ports: &PortSet) -> anyhow::Result<()> {
        let path = self.reserved();
        // An empty list is a line without a port.
        fs::write(&path, format!("{ports}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
        let now: PortSet = text(&path)?.unwrap_or_default().parse()?;
        ensure!(now == *ports, "{} holds {now} after {ports} was written", path.display());
        Ok(())
    }
}

fn text(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

impl Note {
    /// Of ports that were added in this namespace, since the machine was started.
    fn here(added: PortSet) -> anyhow::Result<Self> {
        let boot = text(Path::new(BOOT))?.unwrap_or_default().trim().to_owned();
        Ok(Self { boot, namespace: own_namespace()?, added })
    }

    /// The note in a run directory, if it is about this namespace: what is reserved in one goes with it.
    fn load(run_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = run_dir.join(FILE);
        let Some(text) = text(&path)? else { return Ok(None) };
        let note: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} makes no sense: remove it", path.display()))?;
        let here = Self::here(note.added.clone())?;
        Ok((note == here).then_some(note))
    }

    fn save(&self, run_dir: &Path) -> anyhow::Result<()> {
        let path = run_dir.join(FILE);
        run_dir::replace(&path, |file| {
            serde_json::to_writer(&mut *file, self)?;
            file.write_all(b"\n")
        })
        .with_context(|| format!("writing {}: choose another place by --run-dir", path.display()))
    }

    /// Removes the file; says so, if it was there.
    fn remove(run_dir: &Path) -> anyhow::Result<Option<String>> {
        let path = run_dir.join(FILE);
        for path in [path.with_extension("json.new"), path.clone()] {
            match fs::remove_file(&path) {
                Ok(()) if path.ends_with(FILE) => {
                    return Ok(Some(format!("removed {}", path.display())));
                }
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
