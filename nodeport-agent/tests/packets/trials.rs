//! The tests of all files, each with the same twins, one after the other.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::Trial;

use crate::kernel::Kernel;
use crate::state::State;
use crate::step::Twins;

/// Tests, and the twins that they share; without twins every test is skipped.
pub(crate) struct Trials {
    twins: Option<Arc<Mutex<Twins>>>,
    all: Vec<Trial>,
}

impl Trials {
    pub(crate) fn new(twins: Option<Twins>) -> Self {
        Self { twins: twins.map(|twins| Arc::new(Mutex::new(twins))), all: Vec::new() }
    }

    /// Adds a test, which begins with empty tables and [`State::new`].
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        run: impl FnOnce(&mut Twins) + Send + 'static,
    ) {
        let twins = self.twins.clone();
        let skipped = twins.is_none();
        let run = move || {
            if let Some(twins) = twins {
                // A test that failed leaves nothing that the next does not clear away.
                let mut twins = twins.lock().unwrap_or_else(PoisonError::into_inner);
                twins.reset(State::new());
                run(&mut twins);
            }
            Ok(())
        };
        self.all.push(Trial::test(name, run).with_ignored_flag(skipped));
    }

    /// The same for a test that looks at the kernel's programs alone.
    pub(crate) fn on_kernel(
        &mut self,
        name: impl Into<String>,
        run: impl FnOnce(&Kernel) + Send + 'static,
    ) {
        self.add(name, |twins| run(twins.kernel()));
    }

    /// What was added.
    pub(crate) fn into_all(self) -> Vec<Trial> {
        self.all
    }
}
