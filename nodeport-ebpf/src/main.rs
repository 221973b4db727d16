//! The programs: contexts, helpers and maps behind the traits of `nodeport_common::core`, and an
//! entry for each hook. Every decision is made there; every `unsafe` of the kernel side is here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the target has no other compare-exchange")]
#![expect(clippy::missing_safety_doc, reason = "entry points are called by the kernel alone")]

mod env;
mod every;
mod fragment;
mod maps;
mod packet;
mod program;
mod route;
mod table;
mod verdict;
