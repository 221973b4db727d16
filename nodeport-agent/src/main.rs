//! The agent's command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nodeport_agent::args::{Cli, Command, Common, Run};
use nodeport_agent::config::{Config, Instance};
use nodeport_agent::inspect::Subject;
use nodeport_agent::watch::Source;
use nodeport_agent::{app, dataplane, inspect, telemetry};
use tracing::info;

fn main() -> ExitCode {
    dataplane::give_back_large_blocks();
    let Cli { common, command } = Cli::parse();
    match execute(&common, &command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nodeport-agent: {}", telemetry::line(&error));
            ExitCode::FAILURE
        }
    }
}

fn execute(common: &Common, command: &Command) -> anyhow::Result<()> {
    telemetry::init(common.log_format, &common.log)?;
    match command {
        Command::Run(run) => serve(common, run),
        Command::Cleanup => cleanup(common),
        Command::Services => show(common, Subject::Services),
        Command::Backends => show(common, Subject::Backends),
        Command::Flows => show(common, Subject::Flows),
        Command::Status => show(common, Subject::Status),
    }
}

fn serve(common: &Common, run: &Run) -> anyhow::Result<()> {
    let config = Config::new(common, run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting threads")?;
    runtime.block_on(async {
        let stop = app::stop_signal()?;
        let watching = Source::new(&config).await?.watch();
        let (dataplane, opening) = dataplane::begin(&config)?;
        info!(instance = config.instance.name, node = config.node_name, "starting");
        let opening = opening.telling(watching.events());
        let attaching = tokio::task::spawn_blocking(|| opening.finish());
        let attached = async { attaching.await.context("attaching the programs")? };
        // As a task: what blocks may then hand its thread's other work over.
        let serving =
            async move { app::run(&config, watching, Box::new(dataplane), attached, stop).await };
        tokio::spawn(serving).await.context("the agent has broken down")?
    })
}

fn show(common: &Common, subject: Subject) -> anyhow::Result<()> {
    inspect::show(subject, &Instance::new(common)?, common.output)
}

fn cleanup(common: &Common) -> anyhow::Result<()> {
    let instance = Instance::new(common)?;
    for line in dataplane::cleanup(&instance)? {
        println!("{line}");
    }
    Ok(())
}
