//! What the agent says about its interfaces, for `status` and for whoever reads the file.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::events::Remark;

/// Name of the file in the run directory.
pub(super) const FILE: &str = "devices.json";

/// How an interface is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The hook.
    pub mode: DeviceMode,
    /// Why it is not the better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// The hook that serves an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceMode {
    /// XDP in the driver, with TC beside it.
    Xdp,
    /// TC alone.
    Tc,
    /// It is a pod's veth: TC where the pod's packets come out of it.
    Pod,
    /// None: nothing is attached.
    None,
}

/// A reason for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
}

/// An interface that is served, or shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its number; 0 if it does not exist.
    pub ifindex: u32,
    /// How it is served.
    #[serde(flatten)]
    pub attached: Attached,
}

/// Why XDP does not run on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `--mode tc`.
    Chosen,
    /// Tunnels have no driver that could.
    Tunnel,
    /// VLAN devices have none either: where XDP runs on the interface below, it meets their
    /// frames there.
    VlanDevice,
    /// VLAN devices are above it: if the card takes tags off, XDP takes all for untagged.
    CarriesVlans,
    /// Another program is there.
    Busy { program: u32, name: String },
    /// The driver cannot.
    Unsupported,
    /// The driver will not, as the interface is set up.
    Refused(String),
}

impl Attached {
    pub(super) const fn xdp() -> Self {
        Self { mode: DeviceMode::Xdp, reason: None }
    }

    pub(super) const fn pod() -> Self {
        Self { mode: DeviceMode::Pod, reason: None }
    }

    /// A pod's veth that serves the flows that were opened in fast mode, and no new ones.
    pub(super) fn old_flows() -> Self {
        let text = "--local-mode slow: for flows that are in fast mode already".to_owned();
        let reason = Reason { code: "old_flows".to_owned(), text };
        Self { mode: DeviceMode::Pod, reason: Some(reason) }
    }

    /// A pod's veth that others have a hand in, so that new flows are in slow mode; `mode`, whether
    /// it serves flows that are in fast mode already.
    pub(super) fn beside(others: &str, mode: DeviceMode) -> Self {
        let text = format!("slow mode, which passes {others}");
        Self { mode, reason: Some(Reason { code: "others".to_owned(), text }) }
    }

    /// A pod's veth that came a moment ago, so that new flows are in slow mode yet.
    pub(super) fn too_new() -> Self {
        let text = "slow mode while its network plugin may be at work".to_owned();
        Self::none("too_new", text)
    }

    pub(super) fn tc(refusal: Refusal, device: &str) -> Self {
        let text = match refusal.remedy(device) {
            Some(remedy) => format!("{}; {remedy}", refusal.text()),
            None => refusal.text(),
        };
        let reason = Reason { code: refusal.code().to_owned(), text };
        Self { mode: DeviceMode::Tc, reason: Some(reason) }
    }

    /// Whether another program is where XDP would be.
    pub(super) fn is_busy(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| reason.code == Refusal::BUSY)
    }

    /// Whether XDP does not run because of VLAN devices.
    pub(super) fn is_below_vlans(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| reason.code == Refusal::CARRIES_VLANS)
    }

    /// Whether XDP would run if something were not in its way.
    pub(super) fn is_in_the_way(&self) -> bool {
        let codes = [Refusal::BUSY, Refusal::REFUSED];
        self.reason.as_ref().is_some_and(|reason| codes.contains(&reason.code.as_str()))
    }

    pub(super) fn none(code: &str, text: String) -> Self {
        Self { mode: DeviceMode::None, reason: Some(Reason { code: code.to_owned(), text }) }
    }
}

impl Refusal {
    const BUSY: &str = "busy";
    const CARRIES_VLANS: &str = "carries_vlans";
    const REFUSED: &str = "refused";

    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Tunnel => "tunnel",
            Self::VlanDevice => "vlan_device",
            Self::CarriesVlans => Self::CARRIES_VLANS,
            Self::Busy { .. } => Self::BUSY,
            Self::Unsupported => "no_driver_support",
            Self::Refused(_) => Self::REFUSED,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Chosen => "--mode tc".to_owned(),
            Self::Tunnel => "a tunnel takes no XDP program".to_owned(),
            Self::VlanDevice => "a VLAN device takes no XDP program".to_owned(),
            Self::CarriesVlans => {
                "VLAN devices are on it, and XDP does not see tags that the card takes off"
                    .to_owned()
            }
            Self::Busy { program: 0, .. } => "another XDP program is attached".to_owned(),
            Self::Busy { program, name } if name.is_empty() => {
                format!("XDP program {program} is attached")
            }
            Self::Busy { program, name } => format!("XDP program {program} ({name}) is attached"),
            Self::Unsupported => "the driver has no native XDP".to_owned(),
            Self::Refused(error) => format!("the driver refuses XDP: {error}"),
        }
    }

    pub(super) fn way_out(&self, device: &str) -> String {
        match self.remedy(device) {
            Some(remedy) => format!("{remedy}; or use --mode auto or tc"),
            None => "use --mode auto or tc".to_owned(),
        }
    }

    /// What would let XDP run.
    fn remedy(&self, device: &str) -> Option<String> {
        match self {
            Self::Busy { .. } => Some(format!(
                "have its owner detach it (by hand: `ip link set dev {device} xdp off`)"
            )),
            Self::Refused(_) => Some(format!(
                "the kernel's log may say more (`dmesg`); often the MTU, LRO or too few queues \
                 (`ethtool -k {device}`, `ethtool -l {device}`)"
            )),
            Self::CarriesVlans => {
                Some(format!("`ethtool -K {device} rxvlan off` and --mode xdp let it run"))
            }
            Self::Chosen | Self::Tunnel | Self::VlanDevice | Self::Unsupported => None,
        }
    }
}

/// Writes the file, in one piece.
pub(super) fn write(run_dir: &Path, devices: &[DeviceStatus]) -> anyhow::Result<()> {
    let path = run_dir.join(FILE);
    crate::run_dir::replace(&path, |file| Ok(serde_json::to_writer_pretty(file, devices)?))
        .with_context(|| format!("writing {}", path.display()))
}

/// Reads the file; nothing if there is none.
///
/// # Errors
/// If it is not what [`write`] wrote.
pub fn read(run_dir: &Path) -> anyhow::Result<Vec<DeviceStatus>> {
    let path = run_dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// What Events tell of interfaces: which are not served, and where something is in the way of XDP. That
/// a driver has none is as it is.
pub(super) fn remarks<'a>(
    devices: impl Iterator<Item = &'a DeviceStatus>,
    node: &str,
) -> Vec<Remark> {
    let worth_telling = devices.filter(|device| match device.attached.mode {
        DeviceMode::None => true,
        DeviceMode::Tc => device.attached.is_in_the_way(),
        DeviceMode::Xdp | DeviceMode::Pod => false,
    });
    let remark = |device: &DeviceStatus| {
        let reason = device.attached.reason.as_ref()?;
        let is_served = device.attached.mode != DeviceMode::None;
        Some(Remark::of_interface(node, &device.name, is_served, &reason.text))
    };
    worth_telling.filter_map(remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        assert_eq!(read(&run).unwrap(), []);
        let busy = Refusal::Busy { program: 12, name: "other".to_owned() };
        let devices = [
            DeviceStatus { name: "eth0".to_owned(), ifindex: 2, attached: Attached::xdp() },
            DeviceStatus {
                name: "eth1".to_owned(),
                ifindex: 3,
                attached: Attached::tc(busy, "eth1"),
            },
        ];
        write(&run, &devices).unwrap();
        assert_eq!(read(&run).unwrap(), devices);
        let text = fs::read_to_string(run.join(FILE)).unwrap();
        assert!(text.contains(r#""code": "busy""#) && text.contains("12 (other)"), "{text}");
        assert!(text.contains("ip link set dev eth1 xdp off"), "{text}");
        assert!(devices[1].attached.is_in_the_way());
        assert!(!Attached::tc(Refusal::Unsupported, "eth1").is_in_the_way());
    }

    #[test]
    fn events_tell_what_can_be_helped() {
        let busy = Refusal::Busy { program: 12, name: "other".to_owned() };
        let device =
            |name: &str, attached| DeviceStatus { name: name.to_owned(), ifindex: 2, attached };
        let devices = [
            device("eth0", Attached::xdp()),
            device("eth1", Attached::tc(Refusal::Unsupported, "eth1")),
            device("eth2", Attached::tc(busy, "eth2")),
            device("eth3", Attached::none("failed", "it went".to_owned())),
        ];
        let remarks = remarks(devices.iter(), "n1");
        let told: Vec<_> = remarks.iter().map(|one| (one.reason, &*one.problem)).collect();
        let [("WithoutXDP", busy), ("InterfaceNotServed", gone)] = told[..] else {
            panic!("{told:?}")
        };
        assert!(busy.starts_with("eth2: TC, not XDP: ") && busy.contains("other"), "{busy}");
        assert_eq!(gone, "eth3: not served: it went");
        assert!(remarks.iter().all(|one| &*one.regarding.uid == "n1"), "{remarks:?}");
    }
}
