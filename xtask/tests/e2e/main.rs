//! End to end: real sockets through the programs, in a lab, with the agent as users run it.
//!
//! Each case is a function of a [`Mode`] and runs in XDP and in TC, one after the other: cases load
//! the machine, and two at a time would only disturb each other.

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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::geteuid;
use xtask::lab::Mode;
use xtask::workspace;

/// A case, and the name of the rule that it proves.
type Case = (&'static str, fn(Mode) -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Some(reason) = cannot_run() {
        println!("end-to-end tests skipped: {reason}");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let cases = [
        paths::CASES,
        rules::CASES,
        endpoints::CASES,
        balance::CASES,
        frontends::CASES,
        health::CASES,
        addresses::CASES,
        fast::CASES,
        fragments::CASES,
        load::CASES,
        nat::CASES,
        downloads::CASES,
        lifecycle::CASES,
        listeners::CASES,
        flood::CASES,
    ]
    .concat();
    let trials = [Mode::Xdp, Mode::Tc].iter().flat_map(|mode| {
        let kind = if *mode == Mode::Xdp { "xdp" } else { "tc" };
        let trial = |(name, case): &Case| {
            let (case, mode) = (*case, *mode);
            trial(format!("{kind}: {name}"), move || case(mode))
        };
        cases.iter().map(trial).collect::<Vec<_>>()
    });
    let bench = trial("bench traffic: every row, nothing lost".to_owned(), bench::traffic);
    let (name, case) = scale::CASE;
    let scale = trial(name.to_owned(), move || case(Mode::Auto));
    let cluster = cluster::trials();
    let all = trials.chain([bench, scale]).chain(cluster).collect();
    libtest_mimic::run(&arguments, all).exit_code()
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
