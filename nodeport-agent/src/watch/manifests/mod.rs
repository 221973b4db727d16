//! A folder of manifests as a source.
//!
//! The folder is looked at a few times a second. That works on every file system, also where
//! nobody reports changes (network and overlay file systems, volumes whose content is swapped by
//! a symbolic link), and a file is read only when two looks in a row find it the same: one that
//! is being written or replaced is left alone until that is done.

mod file;
mod look;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use file::Contents;
use look::Look;
use parse::{Key, Object};

use super::Store;
use super::store::Together;
use crate::model::{Finding, Kind, Name, Origin, Rules, Severity};

/// Time between two looks at a folder that is at rest.
const RESTING: Duration = Duration::from_millis(250);
/// Time between two looks while something changes.
const CHANGING: Duration = Duration::from_millis(50);
/// Looking takes at most this part of the time, as long as a change still counts within a second.
const SHARE: u32 = 10;
/// For so long a folder without files is not believed where there was something before, and one
/// that never rests is waited for.
const DOUBTING: Duration = Duration::from_secs(5);
/// The longest time between two looks.
const LONGEST: Duration = Duration::from_millis(500);

/// A folder of manifests.
pub struct Folder {
    path: PathBuf,
    node_name: Arc<str>,
    rules: Rules,
    look: Look,
    readable: bool,
    /// Whether the maps had something in them when this agent began.
    adopted: bool,
    /// When it was looked at for the first time.
    began: Option<Instant>,
    /// Whether all that is there has been told.
    is_told: bool,
    /// The files of which it has been told that they could not be looked at.
    unknown: BTreeMap<PathBuf, String>,
    files: BTreeMap<Arc<PathBuf>, Contents>,
    /// All objects, by the files that they stand in: the first file counts.
    objects: BTreeMap<Key, BTreeMap<Arc<PathBuf>, Object>>,
}

impl Folder {
    /// A folder that has not been looked at yet. `adopted` says that an agent before this one has
    /// left something in the maps.
    #[must_use]
    pub fn new(path: PathBuf, node_name: Arc<str>, rules: Rules, adopted: bool) -> Self {
        Self {
            path,
            node_name,
            rules,
            look: Look::default(),
            readable: true,
            adopted,
            began: None,
            is_told: false,
            unknown: BTreeMap::new(),
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// Looks again and again.
    pub async fn watch(mut self, store: Arc<Store>) {
        loop {
            let started = Instant::now();
            tokio::task::block_in_place(|| self.look(&store, started));
            let wait = if self.look.is_settled() { RESTING } else { CHANGING };
            tokio::time::sleep(wait.max(started.elapsed() * SHARE).min(LONGEST)).await;
        }
    }

    /// Looks once, and tells the store what is new.
    pub fn look(&mut self, store: &Store, now: Instant) {
        let is_young = now < *self.began.get_or_insert(now) + DOUBTING;
        let changed = match self.look.at(&self.path) {
            Ok(changed) => changed,
            Err(error) => {
                self.readable = false;
                return store.set_problems("folder", vec![self.unreadable(&error)]);
            }
        };
        let was_readable = std::mem::replace(&mut self.readable, true);
        let is_news = !was_readable || self.look.unknown() != &self.unknown;
        let is_due = !self.is_told && (self.look.is_settled() || !is_young);
        if changed.is_empty() && !is_news && !is_due {
            return;
        }
        self.unknown.clone_from(self.look.unknown());
        let mut touched = BTreeSet::new();
        for path in changed {
            touched.extend(self.read(path));
        }
        let is_doubtful = is_young && self.adopted && self.files.is_empty();
        self.is_told = self.look.is_settled() && !is_doubtful;
        store.together(|store| {
            self.tell(&touched, is_doubtful, store);
            if self.look.is_settled() {
                store.listed(!is_doubtful && self.is_whole());
            } else if !is_young {
                // What rests is served, if the rest is late.
                store.listed(false);
            }
        });
    }

    /// Whether all that there is could be understood, now or before.
    fn is_whole(&self) -> bool {
        let is_known = |path: &PathBuf| self.files.contains_key(path);
        self.files.values().all(|contents| contents.whole) && self.unknown.keys().all(is_known)
    }

    /// Reads a file, or forgets one that went; returns the objects that it touches.
    fn read(&mut self, path: PathBuf) -> BTreeSet<Key> {
        let path = Arc::new(path);
        let old = self.files.remove(&path);
        let mut touched: BTreeSet<Key> =
            old.iter().flat_map(|contents| contents.objects.keys().cloned()).collect();
        for key in &touched {
            self.forget(key, &path);
        }
        if !self.look.has(&path) {
            return touched;
        }
        // One that went only now is read as it was: the next look sees that it went.
        let contents = Contents::read(&path, old, &self.rules);
        for (key, object) in &contents.objects {
            self.objects.entry(key.clone()).or_default().insert(path.clone(), object.clone());
            touched.insert(key.clone());
        }
        self.files.insert(path, contents);
        touched
    }

    fn forget(&mut self, key: &Key, path: &PathBuf) {
        let Some(versions) = self.objects.get_mut(key) else { return };
        versions.remove(path);
        if versions.is_empty() {
            self.objects.remove(key);
        }
    }

    fn tell(&self, touched: &BTreeSet<Key>, is_doubtful: bool, store: &mut Together<'_>) {
        for key in touched {
            let first = self.objects.get(key).and_then(|versions| versions.values().next());
            match (first, key) {
                (Some(Object::Service(service)), _) => store.set_service(service.clone()),
                (Some(Object::Slice(slice)), _) => store.set_slice(slice.clone()),
                (Some(Object::Node(node)), _) if node.name == self.node_name => {
                    store.set_node(node.clone());
                }
                (None, (Kind::Service, name)) => store.remove_service(name),
                (None, (Kind::EndpointSlice, name)) => store.remove_slice(name),
                // Other machines' nodes, and ours that went: what is known of it stays.
                _ => {}
            }
        }
        store.set_problems("folder", is_doubtful.then(|| self.empty()).into_iter().collect());
        store.set_problems("files", self.problems());
    }

    fn problems(&self) -> Vec<Finding> {
        let files = self.files.values().flat_map(|contents| contents.problems.iter().cloned());
        let unknown = self.unknown.iter().map(|(path, error)| {
            let problem = format!("it cannot be looked at, what is known of it stays: {error}");
            let path = Arc::new(path.clone());
            finding(&path, Kind::File, Name::new("", ""), "", problem)
        });
        files.chain(unknown).chain(self.doubles()).chain(self.no_node()).collect()
    }

    /// Objects that stand in more than one file.
    fn doubles(&self) -> impl Iterator<Item = Finding> {
        self.objects.iter().flat_map(|((kind, name), versions)| {
            let first = versions.keys().next();
            versions.keys().skip(1).filter_map(move |path| {
                let problem = format!("{} has it too, and counts; remove one", first?.display());
                Some(finding(path, *kind, name.clone(), "metadata.name", problem))
            })
        })
    }

    fn no_node(&self) -> Option<Finding> {
        let name = Name::new("", &self.node_name);
        let known = self.objects.contains_key(&(Kind::Node, name.clone()));
        let problem = "no file has a Node of this name, so no address to serve nodePorts on is \
                       known; add it, or give --node-name";
        let folder = Arc::new(self.path.clone());
        (!known).then(|| finding(&folder, Kind::Node, name, "", problem.to_owned()))
    }

    fn empty(&self) -> Finding {
        let problem = format!(
            "the folder has no manifests, though services are served: they stay for {} seconds, \
             should it only not be filled or mounted yet",
            DOUBTING.as_secs()
        );
        let folder = Arc::new(self.path.clone());
        finding(&folder, Kind::File, Name::new("", ""), "", problem)
    }

    fn unreadable(&self, error: &std::io::Error) -> Finding {
        let problem = format!("the folder cannot be read, what is known stays in force: {error}");
        let folder = Arc::new(self.path.clone());
        finding(&folder, Kind::File, Name::new("", ""), "", problem)
    }
}

fn finding(path: &Arc<PathBuf>, kind: Kind, object: Name, field: &str, problem: String) -> Finding {
    let (severity, origin) = (Severity::Error, Origin::File(path.clone()));
    Finding { severity, origin, kind, object, field: field.to_owned(), problem }
}

/// Whether a file of this name is read.
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}
