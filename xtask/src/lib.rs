//! What the project's own commands are made of: set-up, build, tests and the lab.
#![forbid(unsafe_code)]

pub mod build;
pub mod command;
pub mod lab;
pub mod progress;
pub mod setup;
pub mod test;
pub mod toolchain;
pub mod workspace;
