//! The whole control side: a folder of manifests in, maps and a file of names out.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;

use clap::Parser;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::args::{Cli, Command};
use crate::dataplane::{Failure, Observed, Op};
use crate::state_file::State;
use crate::sync::fake::Fake;
use crate::watch::Source;

const WORLD: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, ports: [{port: 80, nodePort: 30007}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.2], nodeName: n2}]
";

fn config(folder: &Path) -> Config {
    let text = |path: &Path| path.display().to_string();
    let (manifests, run) = (text(&folder.join("m")), text(&folder.join("run")));
    let words = ["nodeport-agent", "run", "--manifests", &manifests, "--run-dir", &run];
    // Tests run side by side on one machine.
    let more = ["--node-name", "n1", "--healthz-address", "off", "--metrics-address", "off"];
    let cli = Cli::try_parse_from(words.iter().chain(&more)).unwrap();
    let Command::Run(run) = &cli.command else { panic!("{cli:?}") };
    Config::new(&cli.common, run).unwrap()
}

/// Runs an agent in a folder until `test` is over.
fn with_agent(folder: &Path, fake: &Fake, test: impl FnOnce(&Config)) {
    with_agent_of(&config(folder), fake, test);
}

fn with_agent_of(config: &Config, fake: &Fake, test: impl FnOnce(&Config)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (agent_config, dataplane) = (config.clone(), Box::new(fake.clone()));
    let agent = runtime.spawn(async move {
        let source = Source::new(&agent_config).await?.watch();
        run(&agent_config, source, dataplane, attached(), async { drop(stopped.await) }).await
    });
    test(config);
    drop(stop);
    runtime.block_on(agent).unwrap().unwrap();
}

async fn attached() -> anyhow::Result<()> {
    Ok(())
}

/// Waits until something holds, for a second and a bit of slack.
fn soon(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..60 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("not within three seconds: {what}");
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("m")).unwrap();
    fs::write(folder.path().join("m/world.yaml"), WORLD).unwrap();
    folder
}

fn endpoints(fake: &Fake) -> usize {
    fake.maps().meaning().values().map(std::collections::BTreeSet::len).sum()
}

#[test]
fn maps_and_names_follow_the_manifests() {
    let (folder, fake) = (folder(), Fake::new(1 << 16));
    let file = folder.path().join("m/world.yaml");
    with_agent(folder.path(), &fake, |config| {
        soon("both endpoints are served", || endpoints(&fake) == 2);
        soon("names are written", || State::load(&config.instance).is_ok());
        let state = State::load(&config.instance).unwrap();
        assert_eq!(state.services[0].service.to_string(), "default/web");
        assert_eq!(state.services[0].backends.len(), 2);
        assert!(state.services[0].backends[0].local);

        fs::write(&file, WORLD.replace(", {addresses: [10.0.0.2], nodeName: n2}", "")).unwrap();
        soon("one endpoint is served", || endpoints(&fake) == 1);
        soon("the other is gone", || fake.maps().live() == 1);

        fs::write(&file, "kind: [").unwrap();
        let found = || State::load(&config.instance).unwrap().findings;
        soon("the broken file is reported", || {
            found().iter().any(|one| one.to_string().contains("broken YAML"))
        });
        assert_eq!(endpoints(&fake), 1);
    });
    assert_eq!(endpoints(&fake), 1, "it goes on without the agent");
}

#[test]
fn what_is_wrong_before_all_is_listed_is_said_and_names_stay() {
    let (folder, fake) = (folder(), Fake::new(1 << 16));
    with_agent(folder.path(), &fake, |_| soon("it is served", || endpoints(&fake) == 2));
    let manifests = folder.path().join("m");
    // A folder when the agent is started, which is then nothing that can be read.
    let config = config(folder.path());
    fs::remove_dir_all(&manifests).unwrap();
    with_agent_of(&config, &fake, |config| {
        soon("the folder is named", || {
            let state = State::load(&config.instance).unwrap();
            state.findings.iter().any(|one| one.to_string().contains("the folder cannot be read"))
        });
        assert_eq!(State::load(&config.instance).unwrap().services.len(), 1);
    });
}

#[test]
fn names_that_could_not_be_written_are_written_later() {
    let folder = folder();
    let store = Arc::new(Store::default());
    let fake = Fake::new(1 << 16);
    let sync = Sync::start(Box::new(fake)).unwrap();
    let mut reconciler =
        Reconciler::new(store, crate::plan::testing::settings(), sync, SeedRule::Given(1));
    let config = config(folder.path());
    let mut file = File::new(&config.instance);
    let start = Instant::now();
    fs::write(&config.instance.run_dir, "a file is in the way").unwrap();
    reconciler.set_outdated();
    file.keep(&mut reconciler, start);
    // It is written beside the loop, which goes on.
    assert_eq!(file.due(), Some(start + FILE_LOOK));
    keep_until_written(&mut file, &mut reconciler, start);
    assert!(reconciler.is_outdated());
    assert_eq!(file.due(), Some(start + FILE_RETRY));
    fs::remove_file(&config.instance.run_dir).unwrap();
    keep_until_written(&mut file, &mut reconciler, start + FILE_RETRY);
    assert!(State::load(&config.instance).is_ok());
    assert_eq!((reconciler.is_outdated(), file.due()), (false, None));
}

fn keep_until_written(file: &mut File, reconciler: &mut Reconciler, now: Instant) {
    file.keep(reconciler, now);
    while file.writing.is_some() {
        sleep(Duration::from_millis(1));
        file.keep(reconciler, now);
    }
}

/// Maps beside which something has broken down.
struct Broken(Fake);

impl Dataplane for Broken {
    fn observe(&mut self) -> anyhow::Result<Observed> {
        self.0.observe()
    }

    fn read_slots(&mut self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>> {
        self.0.read_slots(offset, len)
    }

    fn slot_capacity(&self) -> u32 {
        self.0.slot_capacity()
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::bail!("a thread has ended")
    }

    fn begin_barrier(&mut self) {
        self.0.begin_barrier();
    }

    fn barrier_ended(&mut self) -> Option<anyhow::Result<()>> {
        self.0.barrier_ended()
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        self.0.apply(ops)
    }
}

#[test]
fn an_agent_whose_programs_cannot_be_attached_ends() {
    let folder = folder();
    let config = config(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let agent = runtime.spawn(async move {
        let source = Source::new(&config).await?.watch();
        let dataplane = Box::new(Fake::new(1 << 16));
        let refused = async { Err(anyhow::anyhow!("no such interface")) };
        run(&config, source, dataplane, refused, std::future::pending()).await
    });
    let error = runtime.block_on(agent).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no such interface");
}

#[test]
fn an_agent_of_which_a_part_has_ended_ends() {
    let folder = folder();
    let config = config(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let agent = runtime.spawn(async move {
        let source = Source::new(&config).await?.watch();
        let dataplane = Box::new(Broken(Fake::new(1 << 16)));
        run(&config, source, dataplane, attached(), std::future::pending()).await
    });
    let error = runtime.block_on(agent).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a thread has ended");
}

#[test]
fn a_new_agent_takes_over_and_changes_nothing() {
    let (folder, fake) = (folder(), Fake::new(1 << 16));
    with_agent(folder.path(), &fake, |_| soon("it is served", || endpoints(&fake) == 2));
    fake.take_written();
    with_agent(folder.path(), &fake, |config| {
        fs::remove_file(crate::state_file::path(&config.instance)).unwrap();
        soon("it has started", || State::load(&config.instance).is_ok());
    });
    assert_eq!(fake.take_written(), [Op::Barrier]);
}

#[test]
fn the_seed_comes_from_the_cluster_only_where_nothing_else_gives_it() {
    let folder = folder();
    let of_folder = config(folder.path());
    let of = |gives_seed| {
        let cluster = config::Cluster { kubeconfig: None, gives_seed };
        Config { source: config::Source::Cluster(cluster), ..of_folder.clone() }
    };
    let otherwise = of_folder.seed;
    let given = SeedRule::Given(otherwise);
    let (none, before) = (None, Some(9));
    assert_eq!(seed_rule(&of(true), 9), SeedRule::OfCluster { before: none, otherwise });
    let state = State { cluster_seed: Some(9), ..State::default() };
    state.save(&of_folder.instance).unwrap();
    assert_eq!(seed_rule(&of(true), 9), SeedRule::OfCluster { before, otherwise });
    assert_eq!(seed_rule(&of(true), 8), SeedRule::OfCluster { before: none, otherwise });
    assert_eq!(seed_rule(&of(false), 9), given);
    assert_eq!(seed_rule(&of_folder, 9), given);
}

#[test]
fn what_cannot_be_written_is_named_until_it_can() {
    let (folder, fake) = (folder(), Fake::new(1 << 16));
    fake.fail(|op| matches!(op, Op::PutFrontend4(..)));
    with_agent(folder.path(), &fake, |config| {
        let failures =
            || State::load(&config.instance).map(|state| state.failures).unwrap_or_default();
        soon("the failure is named", || failures().iter().any(|one| one.contains("default/web")));
        fake.fail(|_| false);
        soon("it is served", || endpoints(&fake) == 2);
        soon("nothing fails", || failures().is_empty());
    });
}
