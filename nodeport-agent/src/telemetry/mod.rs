//! What the agent says about itself.

mod board;
mod log;

pub use board::{Board, Scope};
pub use log::init;
