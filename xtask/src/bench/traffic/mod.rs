//! `bench traffic`: packets from sockets to sockets, through a node.
//!
//! Every candidate has a client, a node and a backend of its own, and all of them are up from the
//! beginning. Each round runs every load on every candidate, one after the other, so that a change
//! of the machine's speed meets all of them alike; figures are ratios to plain routing in the same
//! round.

mod candidate;
mod cluster;
mod figures;
mod frames;
mod iptables;
mod kube;
mod load;
mod manifests;
mod measure;
mod nftables;
mod probe;
mod report;
mod rounds;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::candidate::Candidate;
use self::frames::Frames;
use self::measure::{Family, Setup, Stand};
use self::probe::{Counts, Probe};
use self::report::Found;
use super::goal::Verdict;
use super::output::Output;
use crate::build;
use crate::lab::Place;
use crate::progress::{Step, skipped};

/// How to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every load runs on every candidate, in turn.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Numbers of services that the agent serves; the rules of others also get 1,000.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10_000], value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub services: Vec<u32>,
    /// New UDP flows in a round.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub flows: u32,
    /// Later packets of a flow in a round.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub packets: u32,
    /// New connections in a round.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub connections: u32,
    /// Requests on kept connections in a round.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(8..=10_000_000))]
    pub requests: u32,
    /// UDP packets from one processor to another in a round.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub datagrams: u32,
    /// Live frames for XDP to send in a round; 0 leaves that out.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    pub frames: u32,
    /// Only these loads.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Probe>,
    /// Only these ways, beside plain routing.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub setups: Vec<Setup>,
    /// Only these families.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Family::V4, Family::V6])]
    pub families: Vec<Family>,
    /// Leave out kube-proxy itself, even if KUBEBUILDER_ASSETS has one.
    #[arg(long)]
    pub skip_kube_proxy: bool,
    /// The processor of what runs on one.
    #[arg(long, default_value_t = 1)]
    pub cpu: usize,
    /// Do not build: measure the agent as it is.
    #[arg(long)]
    pub no_build: bool,
    /// Where the figures go.
    #[command(flatten)]
    pub output: Output,
}

/// Sets up all candidates, measures, prints; returns the goals.
///
/// # Errors
/// If a candidate cannot be set up, or if anything sent does not arrive.
pub(super) fn run(options: &Options) -> Result<Vec<Verdict>> {
    check_volume(options)?;
    if !options.no_build {
        build::run(&build::Options::default())?;
    }
    options.output.publish(&measure(options)?)
}

/// Flows that are live at a time, of TCP or of UDP, for the node's ports towards two backends not
/// to run out: half of them, so that looking for a free one stays cheap.
const MOST_FLOWS: u32 = 28_000;

/// A flow's port stays taken for a minute or two, which is a whole run.
fn check_volume(options: &Options) -> Result<()> {
    let Options { rounds, flows, connections, .. } = options;
    let flows = rounds.saturating_mul(flows.saturating_mul(2).max(*connections));
    ensure!(
        flows <= MOST_FLOWS,
        "--rounds, --flows and --connections make {flows} flows to each service, which has ports \
         for {MOST_FLOWS}: take less of one of them"
    );
    Ok(())
}

fn measure(options: &Options) -> Result<Found> {
    let mut candidates = Vec::new();
    for stand in stands(options).into_iter().chain(kube_proxy(options)) {
        candidates.push(build_candidate(&stand)?);
    }
    let samples = rounds::run(options.rounds, &probes(options), &counts(options), &mut candidates)?;
    // Their processes and packets are gone before the next measure begins.
    drop(candidates);
    let frames = match options.frames {
        0 => Frames::default(),
        frames => frames::measure(options.rounds, frames, options.cpu)?,
    };
    Ok(Found { traffic: samples.figures(), frames })
}

fn build_candidate(stand: &Stand) -> Result<Candidate> {
    let name = stand.to_string();
    let step = Step::start(&name, "a client, a node and a backend of its own");
    let candidate = Candidate::build(stand).with_context(|| format!("set up {name}"))?;
    step.done();
    Ok(candidate)
}

/// What is measured: beside plain routing what was asked for, else everything.
fn stands(options: &Options) -> Vec<Stand> {
    let wanted = |setup: Setup| options.setups.is_empty() || options.setups.contains(&setup);
    let counts: BTreeSet<u32> = options.services.iter().copied().collect();
    let mut more = counts.clone();
    if counts.contains(&1) && counts.contains(&10_000) {
        more.insert(1_000);
    }
    let families: BTreeSet<Family> = options.families.iter().copied().collect();
    let stand = |setup, place, services| {
        let families = families.iter().copied().collect();
        Stand { setup, place, services, families }
    };
    let mut stands = vec![stand(Setup::Routing, Place::Remote, 0)];
    for (setup, counts) in
        [(Setup::Nodeport, &counts), (Setup::Nftables, &more), (Setup::Iptables, &more)]
    {
        let counts = counts.iter().filter(|_| wanted(setup));
        stands.extend(counts.map(|count| stand(setup, Place::Remote, *count)));
    }
    if wanted(Setup::Nodeport) {
        stands.push(stand(Setup::Routing, Place::Local, 0));
        let of = |count: &u32| stand(Setup::Nodeport, Place::Local, *count);
        stands.extend(counts.iter().map(of));
    }
    stands
}

/// kube-proxy itself with one service, where there is one.
fn kube_proxy(options: &Options) -> Option<Stand> {
    let setup = Setup::KubeProxy;
    let wanted = options.setups.is_empty() || options.setups.contains(&setup);
    let served = |family: &Family| options.families.contains(family);
    if options.skip_kube_proxy || !wanted || !kube::FAMILIES.iter().all(served) {
        return None;
    }
    match kube::assets() {
        Ok(_) => {
            let families = kube::FAMILIES.into();
            Some(Stand { setup, place: Place::Remote, services: 1, families })
        }
        Err(reason) => {
            skipped(setup.name(), &format!("skipped: {reason:#}"));
            None
        }
    }
}

/// What is sent: what was asked for, else everything.
fn probes(options: &Options) -> Vec<Probe> {
    let wanted = |probe: &Probe| options.only.is_empty() || options.only.contains(probe);
    Probe::ALL.into_iter().filter(wanted).collect()
}

fn counts(options: &Options) -> Counts {
    Counts {
        cpu: options.cpu,
        flows: options.flows as usize,
        packets: options.packets as usize,
        connections: options.connections.into(),
        requests: options.requests.into(),
        datagrams: options.datagrams.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Call {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Call::parse_from([&["bench"], arguments].concat()).options
    }

    #[test]
    fn by_default_everything_is_measured_with_enough_rounds() {
        let options = options(&[]);
        assert!(options.rounds >= 5 && check_volume(&options).is_ok());
        assert_eq!(probes(&options).len(), Probe::ALL.len());
        let stands = stands(&options);
        for setup in [Setup::Nftables, Setup::Iptables] {
            let of_setup = stands.iter().filter(|stand| stand.setup == setup);
            let counts: Vec<u32> = of_setup.map(|stand| stand.services).collect();
            assert_eq!(counts, [1, 1_000, 10_000]);
        }
        assert!(stands.iter().all(|stand| stand.families == [Family::V4, Family::V6]));
    }

    #[test]
    fn every_way_has_its_reference() {
        for arguments in [
            vec![],
            vec!["--setups", "iptables"],
            vec!["--setups", "nodeport"],
            vec!["--families", "ipv6"],
        ] {
            let stands = stands(&options(&arguments));
            let ways: Vec<_> = stands.iter().flat_map(Stand::ways).collect();
            assert!(!ways.is_empty(), "{arguments:?}");
            assert!(ways.iter().all(|way| ways.contains(&way.reference())), "{arguments:?}");
        }
    }

    #[test]
    fn more_flows_than_ports_are_refused() {
        assert!(check_volume(&options(&["--rounds", "100"])).is_err());
        assert!(check_volume(&options(&["--rounds", "100", "--flows", "100"])).is_err());
        let few = ["--rounds", "100", "--flows", "100", "--connections", "200"];
        assert!(check_volume(&options(&few)).is_ok());
    }
}
