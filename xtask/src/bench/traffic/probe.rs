//! Loads that give samples of measures.

use anyhow::Result;
use clap::ValueEnum;

use super::figures::quantile;
use super::load::{self, Ends, Flows};
use super::measure::Measure;

/// How much each probe sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// The processor of what runs on one.
    pub cpu: usize,
    /// New flows of UDP, in each of both probes that have some.
    pub flows: usize,
    /// Later packets of a flow.
    pub packets: usize,
    /// New connections.
    pub connections: u64,
    /// Requests on connections that stay.
    pub requests: u64,
    /// UDP packets as quickly as they go.
    pub datagrams: u64,
}

/// Later packets on each flow whose round trips are timed.
const LATER_OF_FLOW: usize = 10;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// UDP one way on one processor.
    Packets,
    /// UDP there and back on one processor.
    RoundTrips,
    /// Short TCP connections.
    Connections,
    /// Requests over long ones.
    Requests,
    /// Many UDP packets.
    Datagrams,
}

impl Probe {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Packets, Self::RoundTrips, Self::Connections, Self::Requests, Self::Datagrams];

    /// Its name while it runs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::RoundTrips => "round trips",
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Datagrams => "datagrams",
        }
    }

    /// Sends it all.
    ///
    /// # Errors
    /// If anything sent did not arrive.
    pub(super) fn run(
        self,
        ends: &Ends,
        flows: &mut Flows,
        counts: &Counts,
    ) -> Result<Vec<(Measure, f64)>> {
        let Counts { cpu, flows: firsts, packets, connections, requests, datagrams } = *counts;
        Ok(match self {
            Self::Packets => {
                let times = load::packets(ends, flows, cpu, firsts, packets)?;
                vec![(Measure::FirstPacket, times.first), (Measure::LaterPacket, times.later)]
            }
            Self::RoundTrips => {
                let times = load::round_trips(ends, flows, cpu, firsts, LATER_OF_FLOW)?;
                percentiles(&times)
            }
            Self::Connections => {
                let spent = load::connections(ends, connections)?;
                vec![
                    (Measure::NewConnections, spent.rate(connections)),
                    (Measure::CpuPerConnection, spent.cpu_each(connections)),
                ]
            }
            Self::Requests => {
                let requests = load::whole(requests);
                let spent = load::requests(ends, requests)?;
                vec![
                    (Measure::KeptRequests, spent.rate(requests)),
                    (Measure::CpuPerRequest, spent.cpu_each(requests)),
                ]
            }
            Self::Datagrams => {
                vec![(Measure::UdpRate, load::rate(ends, flows, datagrams)?)]
            }
        })
    }
}

fn percentiles(times: &load::RoundTrips) -> Vec<(Measure, f64)> {
    let sides = [
        (&times.first, [Measure::FirstP50, Measure::FirstP99, Measure::FirstP999]),
        (&times.later, [Measure::LaterP50, Measure::LaterP99, Measure::LaterP999]),
    ];
    let of = |(times, measures): (&Vec<u64>, [Measure; 3])| {
        let times: Vec<f64> = times.iter().map(|time| *time as f64).collect();
        let share = |(measure, share)| quantile(&times, share).map(|value| (measure, value));
        measures.into_iter().zip([0.5, 0.99, 0.999]).filter_map(share).collect::<Vec<_>>()
    };
    sides.into_iter().flat_map(of).collect()
}
