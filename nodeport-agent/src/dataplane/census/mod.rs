//! Counts what lies in the tables of flows: one thread and one walk, for all who want to know.
//!
//! Who wants to know more is one more [`Counter`] on the walk of [`Census::round`].

mod loads;
mod pace;
mod ports;
mod walk;

use std::io::PipeReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::pins::Pins;
use super::snat_ports::Watching;
use super::worker::{Worker, has_ended};
use loads::Loads;
use pace::Pace;
use ports::Ports;
pub(crate) use ports::{Key, Use, in_use};
use walk::Tables;

/// What the thread works with.
pub(super) struct Census {
    control: Arc<Control>,
    tables: Tables,
    loads: Loads,
    ports: Watching,
    /// When ports were last counted.
    ports_counted: Option<Instant>,
}

impl Census {
    pub(super) fn open(
        pins: &Pins,
        control: Arc<Control>,
        ports: Watching,
    ) -> anyhow::Result<Self> {
        let (tables, loads) = (Tables::open(pins)?, Loads::open(pins)?);
        Ok(Self { control, tables, loads, ports, ports_counted: None })
    }

    /// Starts the thread, after a first look at the ports that the kernel keeps free.
    pub(super) fn start(mut self) -> anyhow::Result<Worker> {
        self.ports.begin();
        let without = "how busy backends are, and how many ports are in use, is not known any more";
        Worker::start("census", without, move |stop| self.run(stop))
    }

    fn run(mut self, stop: &PipeReader) -> anyhow::Result<()> {
        while let Some(rest) = self.round(stop)? {
            if has_ended(stop, rest)? {
                break;
            }
        }
        Ok(())
    }

    /// How fast it goes at present.
    fn pace(&self) -> Pace {
        if self.control.counts_loads() { Pace::Quick } else { Pace::Slow }
    }

    /// Walks once; how long to rest then, none if it is time to end.
    fn round(&mut self, stop: &PipeReader) -> anyhow::Result<Option<Duration>> {
        let began = Instant::now();
        let ports_are_due = pace::is_due(self.ports_counted.map(|at| began - at));
        let ports = ports_are_due.then(Ports::default);
        let loads = self.control.counts_loads().then(|| self.loads.begin());

        let (mut counters, mut worked) = ((ports, loads), Duration::ZERO);
        let is_whole = self.tables.walk(&mut counters, |took| {
            worked += took;
            has_ended(stop, self.pace().after_step(took))
        })?;
        if !is_whole {
            return Ok(None);
        }

        let (ports, loads) = counters;
        if let Some(loads) = loads {
            loads.finish();
        }
        if let Some(ports) = ports {
            self.ports.heed(&ports.in_use(), self.control.read().snat_count.into());
            self.ports_counted = Some(began);
        }
        Ok(Some(self.pace().after_round(worked, began.elapsed())))
    }
}
