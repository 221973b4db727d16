//! What all these commands read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use nodeport_common::abi::{
    self, Addr4, Addr6, Backend, Flow, FlowEntry, FlowKey, Frontend, FrontendKey, Plain, maps,
};

use super::table::Table;
use crate::config::Instance;
use crate::dataplane::control::Control;
use crate::dataplane::counters::Counters;
use crate::dataplane::interface_names;
use crate::dataplane::maps::{read_all, shared};
use crate::dataplane::pins::Pins;
use crate::dataplane::sys::Jiffies;
use crate::model::Family;
use crate::state_file::Names;

/// An instance, opened for looking.
pub(super) struct View {
    pub(super) instance: Instance,
    pub(super) pins: Pins,
    pub(super) names: Names,
    pub(super) control: abi::Control,
    pub(super) counters: Counters,
    interfaces: BTreeMap<u32, String>,
}

/// A half of a flow.
pub(super) type Half<A> = (FlowKey<A>, Flow<A>);

/// The maps of one address family.
pub(super) trait InFamily:
    Plain + Default + Ord + Into<std::net::IpAddr> + Send + Sync
{
    const FAMILY: Family;
    const FRONTENDS: &'static str;
    const BACKENDS: &'static str;
    /// The table of flows, and what lies beside it.
    const FLOWS: &'static str;
    const DETAILS: &'static str;
    /// Its element of `heap`.
    const HEAP: u32;
    /// What fills up an entry.
    type Pad: Plain + Send + Sync;
}

impl InFamily for Addr4 {
    const FAMILY: Family = Family::V4;
    const FRONTENDS: &'static str = maps::FRONTENDS4;
    const BACKENDS: &'static str = maps::BACKENDS4;
    const FLOWS: &'static str = maps::FLOWS4;
    const DETAILS: &'static str = maps::DETAILS4;
    const HEAP: u32 = 0;
    type Pad = [u64; 0];
}

impl InFamily for Addr6 {
    const FAMILY: Family = Family::V6;
    const FRONTENDS: &'static str = maps::FRONTENDS6;
    const BACKENDS: &'static str = maps::BACKENDS6;
    const FLOWS: &'static str = maps::FLOWS6;
    const DETAILS: &'static str = maps::DETAILS6;
    const HEAP: u32 = 1;
    type Pad = [u64; 2];
}

impl View {
    pub(super) fn open(instance: &Instance) -> anyhow::Result<Self> {
        let pins = Pins::new(instance);
        match std::fs::metadata(pins.folder()) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "nothing of instance {:?} is in {}: `nodeport-agent run` puts it there; is it \
                 another --instance, or --bpffs?",
                instance.name,
                pins.folder().display()
            ),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}: run as root", pins.folder().display()));
            }
        }
        Ok(Self {
            instance: instance.clone(),
            names: Names::of(instance),
            control: Control::open(&pins)?.read(),
            counters: Counters::open(&pins)?,
            interfaces: interface_names(),
            pins,
        })
    }

    /// The name of an interface, or its number if it is gone.
    pub(super) fn interface(&self, ifindex: u32) -> Cow<'_, str> {
        let name = self.interfaces.get(&ifindex).map(|name| Cow::Borrowed(name.as_str()));
        name.unwrap_or_else(|| Cow::Owned(format!("#{ifindex}")))
    }

    /// Jiffies now, low 32 bits.
    pub(super) fn now(&self) -> anyhow::Result<u32> {
        Jiffies::load().and_then(|clock| clock.now()).context("reading the kernel's clock")
    }

    /// Seconds that so many jiffies are.
    pub(super) fn seconds(&self, jiffies: u32) -> f64 {
        f64::from(jiffies) / f64::from(self.control.hz.max(1))
    }

    pub(super) fn frontends<A: InFamily>(&self) -> anyhow::Result<Vec<(FrontendKey<A>, Frontend)>>
    where
        FrontendKey<A>: Plain,
    {
        read_all(&self.pins, A::FRONTENDS)
    }

    /// The backends that are not all zero, by index.
    pub(super) fn backends<A: InFamily>(&self) -> anyhow::Result<Vec<(u32, Backend<A>)>>
    where
        Backend<A>: Plain,
    {
        let array = shared::<Backend<A>>(&self.pins, A::BACKENDS)?;
        let read = |index| Some((index, array.read(index)?));
        Ok((0..array.len()).filter(|index| !array.is_zero(*index)).filter_map(read).collect())
    }

    /// Halves of flows, in parts.
    pub(super) fn flows<A: InFamily>(&self) -> anyhow::Result<Vec<Vec<Half<A>>>>
    where
        FlowEntry<A, A::Pad>: Plain,
    {
        Ok(Table::open(&self.pins)?.halves())
    }
}

/// The name of a protocol number.
pub(crate) fn protocol(number: u8) -> Cow<'static, str> {
    match number {
        abi::IPPROTO_TCP => Cow::Borrowed("TCP"),
        abi::IPPROTO_UDP => Cow::Borrowed("UDP"),
        other => Cow::Owned(other.to_string()),
    }
}
