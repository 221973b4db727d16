//! The commands that look: they read the pinned maps and the files of the run directory, and need
//! no running agent.

mod backends;
mod flows;
mod output;
mod services;
mod status;
mod table;
mod view;

use crate::args::Output;
use crate::config::Instance;
use view::View;
pub(crate) use view::protocol;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The service ports.
    Services,
    /// The backends.
    Backends,
    /// The flows.
    Flows,
    /// Interfaces, maps, counters and problems.
    Status,
}

/// Prints what an instance holds.
///
/// # Errors
/// If nothing of it is there, or it cannot be read.
pub fn show(subject: Subject, instance: &Instance, output: Output) -> anyhow::Result<()> {
    let view = View::open(instance)?;
    match subject {
        Subject::Services => output::rows(&services::rows(&view)?, output),
        Subject::Backends => output::rows(&backends::rows(&view)?, output),
        Subject::Flows => flows::list(&view, output),
        Subject::Status => output::one(&status::status(&view)?, output),
    }
}
