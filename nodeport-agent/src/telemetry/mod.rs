//! What the agent says about itself.

mod board;
mod line;
mod log;

pub use board::{Board, Scope};
pub use line::line;
pub use log::init;
