//! One table of packets, walked by the kernel's programs (`BPF_PROG_TEST_RUN`) and by the same
//! core on the host: both must come to what the table says, and write the same into their tables.
//!
//! Needs root and the object that `cargo xtask build` makes, named by `NODEPORT_BPF_OBJECT`.
//! Without that variable every test is skipped. All happens in a network namespace of its own.

mod cases;
mod complete;
mod ending;
mod fragments;
mod full;
mod host;
mod kernel;
mod network;
mod race;
mod random;
mod state;
mod step;
mod stress;
mod table;
mod trials;

use std::env;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use nodeport_common::core::family::{V4, V6};

use step::Twins;
use trials::Trials;

/// Names the object.
const OBJECT: &str = "NODEPORT_BPF_OBJECT";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let object = env::var_os(OBJECT);
    if object.is_none() {
        eprintln!("packets: skipped, since {OBJECT} is not set (`cargo xtask test` sets it)");
    }
    let listed = arguments.list || object.is_none();
    let twins = object.filter(|_| !listed).map(|object| {
        network::isolate();
        let bytes = std::fs::read(&object).unwrap_or_else(|error| panic!("{object:?}: {error}"));
        Twins::new(&bytes)
    });
    let mut trials = Trials::new(twins);
    for case in cases::all::<V4>().into_iter().chain(cases::all::<V6>()) {
        trials.add(case.name.clone(), move |twins| twins.run(&case));
    }
    random::add(&mut trials);
    complete::add(&mut trials);
    ending::add(&mut trials);
    fragments::add(&mut trials);
    full::add(&mut trials);
    race::add(&mut trials);
    stress::add(&mut trials);
    libtest_mimic::run(&arguments, trials.into_all()).exit_code()
}
