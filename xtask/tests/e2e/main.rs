//! End to end: real sockets through the programs, in a lab, with the agent as users run it.
//!
//! Each case is a function of a [`Mode`] and runs in XDP and in TC. Cases that load the machine run one
//! after the other: two at a time would only disturb each other.

mod addresses;
mod balance;
mod bench;
mod cluster;
mod downloads;
mod endpoints;
mod fast;
mod flood;
mod fragments;
mod frontends;
mod health;
mod lifecycle;
mod listeners;
mod load;
mod nat;
mod paths;
mod rules;
mod scale;
mod site;
mod together;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::geteuid;
use xtask::lab::Mode;
use xtask::workspace;

/// A case, and the name of the rule that it proves.
type Case = (&'static str, fn(Mode) -> Result<()>);

/// Cases that mostly wait, each in a lab of its own: several at a time disturb nobody.
const WAITING: [&[Case]; 8] = [
    paths::CASES,
    rules::CASES,
    endpoints::CASES,
    balance::CASES,
    frontends::CASES,
    health::CASES,
    addresses::CASES,
    listeners::CASES,
];

/// How many of them run at a time.
const AT_A_TIME: usize = 3;

/// Cases that load the machine: one after the other.
const LOADING: [&[Case]; 7] = [
    fast::CASES,
    fragments::CASES,
    load::CASES,
    nat::CASES,
    downloads::CASES,
    lifecycle::CASES,
    flood::CASES,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(AT_A_TIME);
    if let Some(reason) = cannot_run() {
        println!("end-to-end tests skipped: {reason}");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let waiting = libtest_mimic::run(&arguments, in_both_modes(&WAITING.concat()));
    let mut loading = in_both_modes(&LOADING.concat());
    loading.push(trial("bench traffic: every row, nothing lost".to_owned(), bench::traffic));
    let (name, case) = scale::CASE;
    loading.push(trial(name.to_owned(), move || case(Mode::Auto)));
    loading.extend(cluster::trials());
    arguments.test_threads = Some(1);
    let loading = libtest_mimic::run(&arguments, loading);
    if waiting.has_failed() { waiting.exit_code() } else { loading.exit_code() }
}

/// Each case in XDP, then each in TC.
fn in_both_modes(cases: &[Case]) -> Vec<Trial> {
    let in_mode = |(kind, mode): (&str, Mode)| {
        let trial = |(name, case): &Case| {
            let case = *case;
            trial(format!("{kind}: {name}"), move || case(mode))
        };
        cases.iter().map(trial).collect::<Vec<_>>()
    };
    [("xdp", Mode::Xdp), ("tc", Mode::Tc)].into_iter().flat_map(in_mode).collect()
}

fn cannot_run() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("the lab needs the rights of root");
    }
    if !workspace::agent().exists() {
        return Some("the agent is not built: `cargo xtask test` builds it and runs them");
    }
    None
}

pub(crate) fn trial(name: String, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || match catch_unwind(AssertUnwindSafe(case)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failed::from(format!("{error:#}"))),
        Err(_) => Err(Failed::from("panicked")),
    })
}
