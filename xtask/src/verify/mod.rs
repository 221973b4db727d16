//! `cargo xtask verify`: what the kernel's verifier says to every program of the object.

pub mod guest;
mod initramfs;
mod kernel;
mod load;
mod machine;
mod names;
mod stack;
mod statistics;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::{build, setup, workspace};
use load::Verified;
use stack::Chain;

/// What to verify.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Load this object instead of building one.
    #[arg(long, value_name = "FILE")]
    pub object: Option<PathBuf>,
    /// Show the functions on the deepest chain of calls, with their bytes of stack.
    #[arg(long)]
    pub stack: bool,
    /// Do it under a kernel of this version from Debian, in a virtual machine.
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<String>,
    /// Do it under this kernel (a vmlinuz), in a virtual machine.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub kernel_image: Option<PathBuf>,
}

/// Loads every program and prints what the verifier counted.
///
/// # Errors
/// If the object does not build, or a program does not load; with the verifier's last words.
pub fn run(options: &Options) -> Result<()> {
    let Options { object, stack, kernel, kernel_image } = options;
    let object = match object {
        Some(object) => object.clone(),
        None => {
            build::object(&setup::find()?)?;
            workspace::object()
        }
    };
    let image = match kernel {
        Some(version) => Some(machine::debian_kernel(version)?),
        None => kernel_image.clone(),
    };
    match image {
        Some(image) => machine::verify(&object, &image),
        None => {
            let programs = verify(&object)?;
            println!("{}", table(&programs));
            if *stack {
                programs.iter().for_each(|program| println!("{}", chain(program)));
            }
            Ok(())
        }
    }
}

fn verify(object: &Path) -> Result<Vec<Verified>> {
    let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
    load::programs(&bytes).with_context(|| format!("verify {}", object.display()))
}

fn table(programs: &[Verified]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let limit = format!("stack (of {})", stack::LIMIT);
    table.set_header([
        "program",
        "kind",
        "verified instructions",
        &limit,
        "before 6.9",
        "functions",
        "verified in",
    ]);
    for program in programs {
        table.add_row(row(program));
    }
    for column in 2..=6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(program: &Verified) -> [String; 7] {
    let Verified { name, kind, instructions, stack, stack_before, statistics, names: _ } = program;
    let bytes = |chain: &Option<Chain>| {
        chain.as_ref().map_or("?".to_owned(), |chain| chain.bytes.to_string())
    };
    [
        name.clone(),
        kind.clone(),
        instructions.unwrap_or(statistics.instructions).to_string(),
        bytes(stack),
        bytes(stack_before),
        statistics.stack.split('+').count().to_string(),
        format!("{:.1} ms", statistics.microseconds as f64 / 1000.0),
    ]
}

/// As kernels before 6.9 count, which is more.
fn chain(program: &Verified) -> String {
    let Some(Chain { functions, .. }) = &program.stack_before else { return String::new() };
    let mut text = format!("{}, stack before 6.9:", program.name);
    for (start, bytes) in functions {
        let name = program.names.get(start).map_or("?", String::as_str);
        text += &format!("\n  {bytes:>4} {name}");
    }
    text
}
