//! The kernel side for real: loads, attaches, restarts, follows and cleans up, each test in
//! namespaces of its own.

mod addresses;
mod attaching;
mod filters;
mod flows;
mod listeners;
mod look;
mod maps;
mod pods;
mod reserve;
mod way;
mod world;
