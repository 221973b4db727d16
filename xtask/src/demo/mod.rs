//! `cargo xtask demo`: the project in a minute, on this machine, in network namespaces.
//!
//! Every step shows something and checks it. What is not as it should be makes the demo fail.

mod balance;
mod change;
mod inside;
mod screen;

use std::io::IsTerminal as _;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::lab::manifests::{DEMO_SERVICE, Slices};
use crate::lab::{Agent, AgentOptions, Lab, Topology};
use crate::{build, setup};

/// How to show it.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Leave everything up, and say how to look around in it.
    #[arg(long)]
    pub keep: bool,
}

/// The pods that the demo begins with, both on the second node.
const PODS: [&str; 2] = ["frontend-1", "frontend-2"];

/// The lab with an agent on each node.
struct Stage {
    // Before the lab, whose namespaces the agents' processes are in.
    agents: Vec<Agent>,
    lab: Lab,
}

/// Sets up, builds, shows.
///
/// # Errors
/// If something cannot be set up, or anything shown is not as it should be.
pub fn run(options: &Options) -> Result<()> {
    let ready = setup::ensure()?;
    build::object(&ready)?;
    build::agent()?;
    let started = Instant::now();
    let mut stage = Stage::new()?;
    balance::show(&stage)?;
    change::show(&mut stage)?;
    inside::show(&stage)?;
    screen::title(&format!("All as it should be, in {:.0} s", started.elapsed().as_secs_f64()));
    if options.keep { stage.keep() } else { Ok(()) }
}

impl Stage {
    fn new() -> Result<Self> {
        screen::title("A cluster of two nodes, and a client outside");
        let lab = Lab::build(&Topology::new(2).pods("node2", &PODS))?;
        print!("{}", picture(&lab));
        screen::title("The manifest");
        print!("{}", screen::indented(DEMO_SERVICE));
        lab.apply_nodes()?;
        lab.apply("service", DEMO_SERVICE)?;
        let pods: Vec<_> = lab.pods().iter().map(|pod| (pod, true)).collect();
        lab.apply_slices(&Slices::demo(&pods))?;
        let start = |node: &str| lab.start_agent(node, &AgentOptions::default());
        let agents = vec![start("node1")?, start("node2")?];
        Ok(Self { agents, lab })
    }

    /// Says how to look around, and leaves everything up.
    fn keep(self) -> Result<()> {
        let Self { agents, lab } = self;
        screen::title("Left up: look around");
        let client = lab.client().namespace().path().display().to_string();
        let node = lab.node("node1");
        let target = node.address().v4;
        let inside = format!("nsenter --net={}", node.namespace().path().display());
        println!("  # ask as the client");
        println!("  nsenter --net={client} curl http://{target}:30007/");
        println!("  # what node1 knows");
        for command in ["services", "backends", "flows", "status"] {
            println!("  {inside} {} {command}", lab.agent_call("node1")?);
        }
        println!("  # what lies in its maps");
        println!("  bpftool map dump pinned {}", inside::pin(node, "frontends4").display());
        println!("  # change the cluster: edit these files");
        println!("  ls {}", lab.manifests()?.display());
        println!("  # take it all away");
        println!("  cargo xtask lab down");
        agents.into_iter().for_each(Agent::keep);
        lab.keep().map(|_| ())
    }
}

/// Who is where.
fn picture(lab: &Lab) -> String {
    let (client, node1, node2) = (lab.client(), lab.node("node1"), lab.node("node2"));
    let from = client.addresses().first().map(|pair| pair.v4.to_string()).unwrap_or_default();
    let mut text = format!(
        "  client {from} ──┬── node1 {}\n{}└── node2 {}\n",
        node1.address().v4,
        " ".repeat(from.len() + 12),
        node2.address().v4,
    );
    for pod in lab.pods() {
        let indent = " ".repeat(from.len() + 20);
        text += &format!("{indent}└── {} {}\n", pod.name(), pod.address().v4);
    }
    text
}

/// Whether colours and lines that move make sense.
fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
