//! The commands that look: they read the pinned maps and the files of the run directory, and need
//! no running agent.

pub mod names;
