//! An agent on a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::ip::tool;
use super::member::Node;
use super::process::Process;
use super::{Lab, fabric};
use crate::command::capture;
use crate::workspace;

/// The line in its log that says that it serves.
const READY: &str = "the maps follow";
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Which hook the agent shall use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The better one that works.
    #[default]
    Auto,
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The hook.
    pub mode: Mode,
    /// Interfaces, as `--devices` takes them.
    pub devices: String,
    /// The manifests' folder; that of the lab if there is none.
    pub manifests: Option<PathBuf>,
    /// Passed on as they are.
    pub more: Vec<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        let devices = fabric::NIC.to_owned();
        Self { mode: Mode::default(), devices, manifests: None, more: Vec::new() }
    }
}

/// A running agent; killed when dropped, with its programs left attached, as a crash leaves them.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    arguments: Vec<String>,
    starts: u32,
    process: Process,
}

impl Lab {
    /// The folder whose manifests all agents apply, if they are not told otherwise.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn manifests(&self) -> Result<PathBuf> {
        self.folder.member("manifests")
    }

    /// Starts an agent on a node and waits until it serves.
    ///
    /// # Errors
    /// If the agent is not built, or does not come up; with its log.
    pub fn start_agent(&self, node: &str, options: &AgentOptions) -> Result<Agent> {
        let node = self.node(node).clone();
        let manifests = match &options.manifests {
            Some(folder) => folder.clone(),
            None => self.manifests()?,
        };
        let arguments = run_arguments(&node, &manifests, options);
        let process = start(&node, &arguments, 1)?;
        Ok(Agent { node, arguments, starts: 1, process })
    }

    /// Starts the agent's program on a node with these options and does not wait for anything: for
    /// who measures how long it takes. What it says goes to the file `log` in the node's folder.
    ///
    /// # Errors
    /// If the agent is not built, or cannot be started.
    pub fn launch_agent(&self, node: &str, arguments: &[String], log: &str) -> Result<Process> {
        let node = self.node(node);
        launch(node, arguments, log)
    }

    /// Calls the agent's program on a node: `["flows", "-o", "json"]`, `["cleanup"]`.
    ///
    /// # Errors
    /// If it does not exit with 0; with what it said.
    pub fn call_agent(&self, node: &str, arguments: &[&str]) -> Result<String> {
        call(self.node(node), arguments)
    }
}

impl Lab {
    /// The agent's program with the options that tell it which node it is on, as a person would
    /// type it.
    ///
    /// # Errors
    /// If the agent is not built.
    pub fn agent_call(&self, node: &str) -> Result<String> {
        Ok(crate::command::line(&command(self.node(node))?))
    }
}

impl Agent {
    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, after the end of the one before, and waits until it serves.
    ///
    /// # Errors
    /// If it does not come up; with its log.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.starts += 1;
        self.process = start(&self.node, &self.arguments, self.starts)?;
        Ok(())
    }

    /// The same with more options from now on.
    ///
    /// # Errors
    /// As [`Agent::restart`].
    pub fn restart_with(&mut self, options: &[&str]) -> Result<()> {
        self.arguments.extend(options.iter().map(|option| (*option).to_owned()));
        self.restart()
    }

    /// Calls its program on its node: `["flows", "-o", "json"]`.
    ///
    /// # Errors
    /// If it does not exit with 0; with what it said.
    pub fn call(&self, arguments: &[&str]) -> Result<String> {
        call(&self.node, arguments)
    }

    /// Ends it and removes every trace of it.
    ///
    /// # Errors
    /// If `cleanup` fails; with what it said.
    pub fn cleanup(mut self) -> Result<()> {
        self.process.kill();
        call(&self.node, &["cleanup"]).map(|_| ())
    }

    /// Its process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Lets it run on when this is dropped, for a lab that is kept.
    pub fn keep(mut self) {
        self.process.detach();
    }
}

fn start(node: &Node, arguments: &[String], count: u32) -> Result<Process> {
    let mut process = launch(node, arguments, &format!("agent-{count}.log"))?;
    process.wait_for(READY, READY_WITHIN).with_context(|| format!("agent on {}", node.name()))?;
    Ok(process)
}

fn launch(node: &Node, arguments: &[String], log: &str) -> Result<Process> {
    let mut command = command(node)?;
    let log = node.folder.join(log);
    let process = Process::start(&node.namespace, command.args(arguments), &log)?;
    let group = node.cgroup.join("cgroup.procs");
    fs::write(&group, process.id().to_string())
        .with_context(|| format!("put the agent into {}", group.display()))?;
    Ok(process)
}

fn call(node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = command(node)?;
    command.args(arguments);
    node.namespace
        .run(|| capture(&mut command))?
        .with_context(|| format!("agent on {}", node.name()))
}

/// The program, told which node it is on. What it needs of the machine is the lab's alone.
fn command(node: &Node) -> Result<Command> {
    let agent = workspace::agent();
    ensure!(agent.exists(), "{} is not there: run `cargo xtask build`", agent.display());
    let mut command = tool(&agent.to_string_lossy());
    command.args(["--instance", node.name()]);
    command.arg("--bpffs").arg(&node.bpffs).arg("--run-dir").arg(node.folder.join("run"));
    Ok(command)
}

fn run_arguments(node: &Node, manifests: &Path, options: &AgentOptions) -> Vec<String> {
    let AgentOptions { mode, devices, manifests: _, more } = options;
    let manifests = manifests.display().to_string();
    let mut arguments: Vec<String> = ["run", "--manifests", &manifests, "--node-name", node.name()]
        .iter()
        .chain(&["--devices", devices, "--mode", mode.as_str()])
        .map(|argument| (*argument).to_owned())
        .collect();
    arguments.extend_from_slice(more);
    arguments
}
