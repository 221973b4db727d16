//! The table of flows by itself: against a model, under threads, and in every order in which two
//! processors may meet.

mod evictions;
mod flood;
mod interleavings;
mod memory;
mod model;
mod room;
mod slots;
mod threads;
