//! What the project's own commands are made of: set-up, build, tests and the lab.
#![deny(unsafe_code)]

pub mod bench;
pub mod build;
pub mod command;
pub mod demo;
pub mod fuzz;
pub mod lab;
pub mod processor;
pub mod progress;
pub mod setup;
pub mod test;
pub mod toolchain;
pub mod verify;
pub mod workspace;
