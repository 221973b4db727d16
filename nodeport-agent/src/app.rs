//! Which part does what, and in which order they start and stop.
//!
//! One task for each watch fills the store; the loop below owns everything else. Nothing is taken
//! down at the end: the programs and maps are pinned, and serve on until another agent takes them
//! over or `cleanup` removes them.

use std::future::Future;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::addresses;
use crate::config::{self, Config, HostListeners, Instance};
use crate::dataplane::{Dataplane, give_back_pages};
use crate::health;
use crate::listeners::Watch;
use crate::metrics::{self, Metrics, Sources};
use crate::plan::{Held, SeedRule, Settings};
use crate::reconcile::Reconciler;
use crate::state_file::State;
use crate::sync::Sync;
use crate::watch::{Store, Watching};

/// Time between two writes of the file for other commands, at least.
const FILE_PAUSE: Duration = Duration::from_millis(200);
/// Pause between two looks whether it has been written.
const FILE_LOOK: Duration = Duration::from_millis(20);
/// Time until writing it is tried again.
const FILE_RETRY: Duration = Duration::from_secs(5);
/// Writing that file takes at most this part of the time.
const FILE_SHARE: u32 = 20;
/// How often it is looked whether everything still runs.
const WATCH: Duration = Duration::from_secs(2);

/// Serves until `stop` is ready. The maps follow the source at once, while the programs are being
/// attached; `attached` tells how that went.
///
/// # Errors
/// If the maps cannot be read at the start, if the programs cannot be attached, or if a watch or
/// another part ends, which none should.
pub async fn run(
    config: &Config,
    watching: Watching,
    dataplane: Box<dyn Dataplane>,
    attached: impl Future<Output = anyhow::Result<()>>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let traffic = dataplane.traffic();
    let sync = Sync::start(dataplane)?.lingering(config.timeouts.without_backend());
    let seed = seed_rule(config, sync.seed());
    let settings = Settings {
        node_name: config.node_name.as_str().into(),
        source_ranges: config.serves.source_ranges,
        held: Held::default(),
    };
    let events = watching.events();
    let (store, mut tasks) = watching.follow(sync.has_adopted());
    let reconciler = Reconciler::new(store.clone(), settings, sync, seed).telling(events);
    tasks.spawn(health::serve(reconciler.health().clone(), store.clone(), config.health));
    let sources = Sources {
        instance: config.instance.clone(),
        detail: config.metrics.detail,
        store: store.clone(),
        health: reconciler.health().clone(),
        progress: reconciler.progress().clone(),
        directory: reconciler.directory().clone(),
        traffic,
    };
    let metrics = Arc::new(Metrics::new(sources));
    tasks.spawn(metrics::serve(metrics, store.clone(), config.metrics.at));
    let reconciler = heeding(config.host_listeners, reconciler, &store)?;
    let wake = store.clone();
    let addresses = addresses::Watch::start(move || wake.wake())?;
    let reconciler = reconciler.serving_on(addresses, config.node_port_addresses.clone());
    let mut worker = Worker { reconciler, file: File::new(&config.instance) };
    let listed = Notify::new();
    let outcome = tokio::select! {
        () = stop => Ok(()),
        outcome = ended(&mut tasks) => outcome,
        outcome = worker.work(&store, &listed) => outcome,
        Err(error) = serving(attached, &listed) => Err(error),
    };
    tasks.shutdown().await;
    tokio::task::block_in_place(|| worker.finish());
    info!("stopped; the data path serves on as it is");
    outcome
}

/// With an eye on the node's own listeners, if the user wants that.
fn heeding(
    rule: HostListeners,
    reconciler: Reconciler,
    store: &Arc<Store>,
) -> anyhow::Result<Reconciler> {
    if rule == HostListeners::Ignore {
        return Ok(reconciler);
    }
    let store = store.clone();
    Ok(reconciler.beside(Watch::start(move || store.wake())?, rule))
}

/// Says when both the programs are attached and all is listed; never ends but by a failure.
async fn serving(
    attached: impl Future<Output = anyhow::Result<()>>,
    listed: &Notify,
) -> anyhow::Result<std::convert::Infallible> {
    attached.await?;
    info!("the programs are attached");
    listed.notified().await;
    // The kernel's types and the first lists were read for this, and are needed no more.
    give_back_pages();
    info!("serving: the maps follow");
    std::future::pending().await
}

/// Where the seed comes from; `found` is the one in the maps.
fn seed_rule(config: &Config, found: u32) -> SeedRule {
    match &config.source {
        config::Source::Cluster(cluster) if cluster.gives_seed => {
            // The file tells whether an earlier run had it from the cluster too.
            let before = State::load(&config.instance).ok().and_then(|state| state.cluster_seed);
            let before = before.filter(|seed| *seed == found);
            SeedRule::OfCluster { before, otherwise: config.seed }
        }
        _ => SeedRule::Given(config.seed),
    }
}

/// Waits for the signals that ask to stop.
///
/// # Errors
/// If signals cannot be waited for.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A watch never ends by itself, so this waits for ever, or for a mistake of ours.
async fn ended(tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    match tasks.join_next().await {
        Some(Err(error)) => Err(error).context("a watch has broken down"),
        _ => anyhow::bail!("a watch has ended: start the agent again"),
    }
}

struct Worker {
    reconciler: Reconciler,
    file: File,
}

impl Worker {
    /// Takes a step whenever the world changed or something is due. The steps do system calls
    /// that may take milliseconds, so they are kept apart from the watches.
    async fn work(&mut self, store: &Store, listed: &Notify) -> anyhow::Result<()> {
        loop {
            let had_started = self.reconciler.has_started();
            tokio::task::block_in_place(|| self.step());
            if self.reconciler.has_started() && !had_started {
                listed.notify_one();
            }
            self.reconciler.check()?;
            let due = self.reconciler.wake_at().into_iter().chain(self.file.due()).min();
            let look = Instant::now() + WATCH;
            let due = due.map_or(look, |due| due.min(look));
            tokio::select! {
                () = store.changed() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    fn step(&mut self) {
        self.reconciler.step(Instant::now());
        self.file.keep(&mut self.reconciler, Instant::now());
    }

    fn finish(&mut self) {
        self.reconciler.finish();
        self.file.finish(&mut self.reconciler);
    }
}

/// The file for other commands. With many services writing it takes a while, so a thread does it
/// while the loop goes on.
struct File {
    instance: Instance,
    /// When it may be written again.
    next: Option<Instant>,
    /// When writing it is due, if there may be something new, or looking whether it is written.
    due: Option<Instant>,
    writing: Option<JoinHandle<Written>>,
    failing: bool,
}

/// How writing the file went, and how long it took.
struct Written {
    outcome: anyhow::Result<()>,
    took: Duration,
}

impl File {
    fn new(instance: &Instance) -> Self {
        Self { instance: instance.clone(), next: None, due: None, writing: None, failing: false }
    }

    const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Has it written, or puts that off: with many services it is large, and they change often.
    fn keep(&mut self, reconciler: &mut Reconciler, now: Instant) {
        self.due = None;
        if let Some(thread) = self.writing.take_if(|thread| thread.is_finished()) {
            self.take_note(written(thread), reconciler, now);
        }
        if self.writing.is_none() && self.next.is_none_or(|next| next <= now) {
            self.writing = self.state(reconciler).map(thread::spawn);
        }
        self.due = match self.writing {
            Some(_) => Some(now + FILE_LOOK),
            None => self.next.filter(|_| reconciler.is_outdated()),
        };
    }

    /// Writes what is new, before the end.
    fn finish(&mut self, reconciler: &mut Reconciler) {
        if let Some(thread) = self.writing.take() {
            self.take_note(written(thread), reconciler, Instant::now());
        }
        if let Some(write) = self.state(reconciler) {
            self.take_note(write(), reconciler, Instant::now());
        }
    }

    /// What there is to write, as the writing of it.
    fn state(
        &self,
        reconciler: &mut Reconciler,
    ) -> Option<impl FnOnce() -> Written + Send + 'static> {
        let mut state = reconciler.take_state()?;
        let (instance, has_started) = (self.instance.clone(), reconciler.has_started());
        Some(move || {
            let start = Instant::now();
            if !has_started {
                state.keep_names(&instance);
            }
            Written { outcome: state.save(&instance), took: start.elapsed() }
        })
    }

    fn take_note(&mut self, written: Written, reconciler: &mut Reconciler, now: Instant) {
        let Written { outcome, took } = written;
        if let Err(error) = outcome {
            if !std::mem::replace(&mut self.failing, true) {
                warn!("the commands that show services cannot name them: {error:#}");
            }
            reconciler.set_outdated();
            self.next = Some(now + FILE_RETRY);
            return;
        }
        if std::mem::take(&mut self.failing) {
            info!("the commands that show services can name them again");
        }
        self.next = Some(now + FILE_PAUSE.max(took * FILE_SHARE));
    }
}

/// What the thread has come to.
fn written(thread: JoinHandle<Written>) -> Written {
    let broken = |_| Written {
        outcome: Err(anyhow::anyhow!("the thread that writes them has panicked")),
        took: Duration::ZERO,
    };
    thread.join().unwrap_or_else(broken)
}

#[cfg(test)]
mod tests;
