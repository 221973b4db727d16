//! Loads that give samples of measures.

use anyhow::Result;
use clap::ValueEnum;

use super::super::spread::quantile;
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

impl Counts {
    /// One of so many parts, none of which is empty.
    fn part(&self, parts: u32) -> Self {
        let long = |count: u64| (count / u64::from(parts)).max(1);
        let short = |count: usize| (count / parts as usize).max(1);
        Self {
            cpu: self.cpu,
            flows: short(self.flows),
            packets: short(self.packets),
            connections: long(self.connections),
            requests: long(self.requests),
            datagrams: long(self.datagrams),
        }
    }
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

    /// How often each candidate has its turn in a round, with a part of what is sent in it: short
    /// turns meet the machine at the same speed.
    pub(super) const fn passes(self) -> u32 {
        match self {
            Self::Packets | Self::Datagrams => 4,
            Self::Connections | Self::Requests => 2,
            // A thousandth needs a thousand.
            Self::RoundTrips => 1,
        }
    }

    /// Sends a pass's part of it.
    ///
    /// # Errors
    /// If anything sent did not arrive.
    pub(super) fn run(
        self,
        ends: &Ends,
        flows: &mut Flows,
        counts: &Counts,
    ) -> Result<Vec<(Measure, f64)>> {
        let Counts { cpu, flows: firsts, packets, connections, requests, datagrams } =
            counts.part(self.passes());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_never_empty() {
        let counts =
            Counts { cpu: 1, flows: 1, packets: 8, connections: 3, requests: 0, datagrams: 9 };
        let Counts { cpu, flows, packets, connections, requests, datagrams } = counts.part(4);
        assert_eq!((cpu, flows, packets), (1, 1, 2));
        assert_eq!((connections, requests, datagrams), (1, 1, 2));
    }

    #[test]
    fn a_percentile_is_not_exceeded_by_its_share() {
        let times = load::RoundTrips { first: (1..=1_001).collect(), later: vec![7] };
        let found = percentiles(&times);
        assert_eq!(found[0], (Measure::FirstP50, 501.0));
        assert_eq!(found[1], (Measure::FirstP99, 991.0));
        assert_eq!(found[2], (Measure::FirstP999, 1_000.0));
        assert!(found[3..].iter().all(|(_, value)| *value == 7.0));
    }
}
