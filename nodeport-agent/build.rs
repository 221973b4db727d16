//! Puts the eBPF object where `include_bytes!` finds it: `$OUT_DIR/nodeport.o`.
//!
//! `cargo xtask build` names the object in `NODEPORT_BPF_OBJECT`. Without it an empty file stands
//! in, so that plain `cargo check`, `clippy` and `test` need no BPF toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "NODEPORT_BPF_OBJECT";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("nodeport.o");
    match env::var_os(VARIABLE).map(PathBuf::from) {
        Some(object) => embed(&object, &out),
        None => stub(&out, &format!("{VARIABLE} is not set")),
    }
}

fn embed(object: &Path, out: &Path) {
    println!("cargo:rerun-if-changed={}", object.display());
    match fs::read(object) {
        Ok(bytes) => write(out, &bytes),
        Err(error) => stub(out, &format!("{}: {error}", object.display())),
    }
}

fn stub(out: &Path, why: &str) {
    println!(
        "cargo:warning=the eBPF object is stubbed ({why}): the agent will not load programs; \
         `cargo xtask build` makes the real one"
    );
    write(out, &[]);
}

fn write(out: &Path, bytes: &[u8]) {
    fs::write(out, bytes).unwrap_or_else(|error| panic!("write {}: {error}", out.display()));
}
