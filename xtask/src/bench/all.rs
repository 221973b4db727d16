//! `bench all`: every bench, one after the other, with all figures in one folder.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use super::goal::{self, Verdict};
use super::output::Output;
use super::{flood, packet, scale, traffic};
use crate::build;

/// Where the figures of all benches go.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds of each bench, instead of its own number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: Option<u32>,
    /// Write the figures of each as JSON into this folder: `packet.json`, `traffic.json`,
    /// `flood.json`, `flood-ipv6.json`, `scale.json`.
    #[arg(long, value_name = "DIR")]
    pub json: Option<PathBuf>,
    /// Write the charts of all (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
    /// Fail if a goal is missed; the others are measured all the same.
    #[arg(long)]
    pub check: bool,
}

/// One of the benches, with what it is to do.
enum Bench {
    Packet(packet::Options),
    Traffic(traffic::Options),
    Flood(flood::Options),
    Scale(scale::Options),
}

impl Bench {
    fn run(&self) -> Result<Vec<Verdict>> {
        match self {
            Self::Packet(options) => packet::run(options),
            Self::Traffic(options) => traffic::run(options),
            Self::Flood(options) => flood::run(options),
            Self::Scale(options) => scale::run(options),
        }
    }
}

/// Measures everything; a bench that fails does not keep the others from running.
///
/// # Errors
/// If one of them failed.
pub(super) fn run(options: &Options) -> Result<Vec<Verdict>> {
    build::run(&build::Options::default())?;
    let (mut verdicts, mut failed) = (Vec::new(), Vec::new());
    for (name, bench) in benches(options)? {
        println!("\n# {name}\n");
        match bench.run() {
            Ok(more) => verdicts.extend(more),
            Err(error) => {
                println!("FAILED: {error:#}");
                failed.push(error.context(format!("bench {name}")));
            }
        }
    }
    println!("\n# all goals\n\n{}", goal::table(&verdicts));
    let count = failed.len();
    failed.into_iter().next().map_or(Ok(verdicts), |first| {
        Err(first.context(anyhow!("{count} of the benches failed; the first of them:")))
    })
}

/// All benches, each with its own defaults.
fn benches(options: &Options) -> Result<Vec<(&'static str, Bench)>> {
    let mut packet: packet::Options = defaults()?;
    let mut traffic: traffic::Options = defaults()?;
    let mut floods: [flood::Options; 2] = [defaults()?, defaults()?];
    let mut scale: scale::Options = defaults()?;
    floods[1].ipv6 = true;
    (traffic.no_build, floods[0].no_build, floods[1].no_build) = (true, true, true);
    if let Some(rounds) = options.rounds {
        (packet.rounds, traffic.rounds, scale.rounds) = (rounds, rounds, rounds);
        floods.iter_mut().for_each(|flood| flood.rounds = rounds);
    }
    packet.output = options.output("packet");
    traffic.output = options.output("traffic");
    scale.output = options.output("scale");
    let [mut flood4, mut flood6] = floods;
    (flood4.output, flood6.output) = (options.output("flood"), options.output("flood-ipv6"));
    Ok(vec![
        ("packet", Bench::Packet(packet)),
        ("traffic", Bench::Traffic(traffic)),
        ("flood", Bench::Flood(flood4)),
        ("flood over IPv6", Bench::Flood(flood6)),
        ("scale", Bench::Scale(scale)),
    ])
}

impl Options {
    /// Where the figures of the bench of that name go.
    fn output(&self, name: &str) -> Output {
        Output {
            json: self.json.as_ref().map(|folder| folder.join(format!("{name}.json"))),
            charts: self.charts.clone(),
            check: self.check,
        }
    }
}

/// The options of a bench that is called without any.
fn defaults<T: Args>() -> Result<T> {
    let command = T::augment_args(clap::Command::new("bench"));
    let matches = command.try_get_matches_from(["bench"]).context("options without a default")?;
    T::from_arg_matches(&matches).context("options without a default")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    fn output(bench: &Bench) -> &Output {
        match bench {
            Bench::Packet(options) => &options.output,
            Bench::Traffic(options) => &options.output,
            Bench::Flood(options) => &options.output,
            Bench::Scale(options) => &options.output,
        }
    }

    fn rounds(bench: &Bench) -> u32 {
        match bench {
            Bench::Packet(options) => options.rounds,
            Bench::Traffic(options) => options.rounds,
            Bench::Flood(options) => options.rounds,
            Bench::Scale(options) => options.rounds,
        }
    }

    fn options(rounds: Option<u32>) -> Options {
        let folder = |name: &str| Some(PathBuf::from(name));
        Options { rounds, json: folder("figures"), charts: folder("charts"), check: true }
    }

    #[test]
    fn every_bench_runs_with_enough_rounds_or_with_those_asked_for() {
        assert!(benches(&options(None)).unwrap().iter().all(|(_, bench)| rounds(bench) >= 5));
        assert!(benches(&options(Some(2))).unwrap().iter().all(|(_, bench)| rounds(bench) == 2));
    }

    #[test]
    fn every_bench_writes_charts_and_a_file_of_its_own() {
        let benches = benches(&options(None)).unwrap();
        let outputs: Vec<&Output> = benches.iter().map(|(_, bench)| output(bench)).collect();
        assert!(outputs.iter().all(|one| one.charts.as_deref() == Some(Path::new("charts"))));
        let files: HashSet<_> = outputs.iter().filter_map(|one| one.json.clone()).collect();
        assert_eq!(files.len(), benches.len());
        assert!(files.contains(Path::new("figures/flood-ipv6.json")));
    }

    #[test]
    fn a_flood_comes_in_both_families() {
        let benches = benches(&options(None)).unwrap();
        let floods = benches.iter().filter_map(|(_, bench)| match bench {
            Bench::Flood(options) => Some(options.ipv6),
            _ => None,
        });
        assert_eq!(floods.collect::<Vec<_>>(), [false, true]);
    }
}
