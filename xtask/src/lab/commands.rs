//! `cargo xtask lab up` and `lab down`: a lab to look around in.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{Fabric, Lab, PodLink, Topology, folder};

/// What to do with labs.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Build a lab that stays, and print how to look around in it.
    Up(Up),
    /// Take away all labs that stayed, and what crashed ones left.
    Down,
}

/// What to build.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// How nodes reach each other.
    #[arg(long, value_enum, default_value_t)]
    pub topology: Fabric,
    /// How pods hang on their node.
    #[arg(long, value_enum, default_value_t)]
    pub pod_link: PodLink,
    /// Number of nodes; each gets two pods.
    #[arg(long, default_value_t = 2)]
    pub nodes: usize,
    /// Put a router between clients and nodes that passes packets of at most this size.
    #[arg(long, value_name = "MTU")]
    pub narrow: Option<u32>,
    /// Stay until Ctrl-C, then take the lab away.
    #[arg(long)]
    pub foreground: bool,
}

/// Does it.
///
/// # Errors
/// If the lab cannot be built.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up(options) => up(options),
        Command::Down => {
            down();
            Ok(())
        }
    }
}

fn up(options: &Up) -> Result<()> {
    let Up { topology, pod_link, nodes, narrow, foreground } = options;
    let mut description = Topology::new(*nodes).fabric(*topology).pod_link(*pod_link);
    description.narrow = *narrow;
    for (number, node) in (1..).zip(&mut description.nodes) {
        node.pods = (1..=2).map(|pod| format!("web-{number}-{pod}")).collect();
    }
    let lab = Lab::build(&description)?;
    print!("{}", lab.guide());
    if *foreground {
        println!("\nits folder is {}; Ctrl-C takes it away", lab.path().display());
        loop {
            std::thread::park();
        }
    }
    let folder = lab.keep()?;
    println!("\nits folder is {}; take it away with: cargo xtask lab down", folder.display());
    Ok(())
}

fn down() {
    for lab in folder::all().iter().filter(|lab| folder::is_kept(lab)) {
        folder::remove(lab);
        println!("removed {}", lab.display());
    }
    folder::remove_stale();
}

impl Lab {
    /// Who is there at which address, and how to enter each namespace.
    #[must_use]
    pub fn guide(&self) -> String {
        let mut lines = Vec::new();
        for client in self.clients() {
            let addresses = client.addresses();
            let more = format!("{} and {} more", addresses[0], addresses.len() - 1);
            lines.push((client.namespace(), more));
        }
        lines.extend(self.fabric().iter().map(|namespace| (namespace, String::new())));
        lines
            .extend(self.nodes().iter().map(|node| (node.namespace(), node.address().to_string())));
        for pod in self.pods() {
            let place = format!("{} on {}, {}", pod.address(), pod.node(), pod.device());
            lines.push((pod.namespace(), place));
        }
        let line = |(namespace, about): (&super::Namespace, String)| {
            format!(
                "{:<10} nsenter --net={}   # {about}\n",
                namespace.name(),
                namespace.path().display()
            )
        };
        lines.into_iter().map(line).collect()
    }
}
