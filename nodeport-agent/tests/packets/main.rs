//! One table of packets, walked by the kernel's programs (`BPF_PROG_TEST_RUN`) and by the same
//! core on the host: both must come to what the table says, and write the same into their tables.
//!
//! Needs root and the object that `cargo xtask build` makes, named by `NODEPORT_BPF_OBJECT`.
//! Without that variable every test is skipped. All happens in a network namespace of its own.

mod cases;
mod complete;
mod ending;
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

use std::env;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};
use nodeport_common::core::family::{V4, V6};

use step::{Case, Twins};

/// Names the object.
const OBJECT: &str = "NODEPORT_BPF_OBJECT";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let object = env::var_os(OBJECT);
    if object.is_none() {
        eprintln!("packets: skipped, since {OBJECT} is not set (`cargo xtask test` sets it)");
    }
    let listed = arguments.list || object.is_none();
    let twins = match object.filter(|_| !listed) {
        Some(object) => {
            network::isolate();
            let bytes =
                std::fs::read(&object).unwrap_or_else(|error| panic!("{object:?}: {error}"));
            Some(Arc::new(Mutex::new(Twins::new(&bytes))))
        }
        None => None,
    };
    let mut trials: Vec<Trial> = cases::all::<V4>()
        .into_iter()
        .chain(cases::all::<V6>())
        .map(|case| trial(case, twins.clone()))
        .collect();
    trials.extend(random::trials(&twins));
    trials.extend(complete::trials(&twins));
    trials.extend(ending::trials(&twins));
    trials.extend(full::trials(&twins));
    trials.extend(race::trials(&twins));
    trials.extend(stress::trials(&twins));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(case: Case, twins: Option<Arc<Mutex<Twins>>>) -> Trial {
    let skipped = twins.is_none();
    let name = case.name.clone();
    let run = move || {
        if let Some(twins) = twins {
            // A case that failed leaves nothing that the next does not clear away.
            twins.lock().unwrap_or_else(PoisonError::into_inner).run(&case);
        }
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(skipped)
}
