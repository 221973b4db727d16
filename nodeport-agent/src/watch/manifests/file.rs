//! What a file of manifests says, and what it said when it was last right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::finding;
use super::parse::{self, Document, Key, Object};
use crate::model::{Finding, Kind, Name, Rules, Severity};

/// The largest file that is read: some hundred thousand endpoints.
const LARGEST: u64 = 64 << 20;

/// What counts of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Its objects; where it is wrong now, as they were when it was right.
    pub(super) objects: BTreeMap<Key, Object>,
    /// What is wrong with it.
    pub(super) problems: Vec<Finding>,
    /// Nothing in it is unknown: what could not be understood was known before.
    pub(super) whole: bool,
}

impl Contents {
    /// Reads a file. `old` is what counted of it before.
    pub(super) fn read(path: &Arc<PathBuf>, old: Option<Self>, rules: &Rules) -> Self {
        let text = match text(path) {
            Ok(text) => text,
            Err(error) => return Self::unreadable(path, old, &error.to_string()),
        };
        match parse::documents(path, &text) {
            Ok(values) => {
                let documents = values.into_iter().map(|value| parse::document(path, value, rules));
                Self::merge(documents.collect(), old)
            }
            Err(error) => Self::unreadable(path, old, &error),
        }
    }

    /// Nothing in the file can be told apart: all of it stays as it was.
    fn unreadable(path: &Arc<PathBuf>, old: Option<Self>, error: &str) -> Self {
        let served = match &old {
            Some(_) => "its last good version is served",
            None => "nothing in it is served",
        };
        let problem = format!("it cannot be read, {served}: {error}");
        let problems = vec![finding(path, Kind::File, Name::new("", ""), "", problem)];
        match old {
            Some(old) => Self { problems, ..old },
            None => Self { problems, ..Self::default() },
        }
    }

    fn merge(documents: Vec<Document>, old: Option<Self>) -> Self {
        let mut old = old.map(|old| old.objects).unwrap_or_default();
        let mut new = Self { whole: true, ..Self::default() };
        for document in documents {
            match document {
                Document::Object(key, object, remarks) => {
                    new.problems.extend(remarks);
                    new.object(key, object, &mut old);
                }
                Document::Broken(key, finding) => new.broken(key, finding, &mut old),
                Document::Foreign(finding) => new.problems.push(finding),
            }
        }
        new
    }

    fn object(&mut self, key: Key, object: Object, old: &mut BTreeMap<Key, Object>) {
        if self.objects.contains_key(&key) {
            let problem = "the file has it twice, the first counts; remove one";
            self.problems.extend(object.finding("metadata.name", problem));
            return;
        }
        let errors: Vec<_> = object.findings().iter().filter(|one| spoils(one)).cloned().collect();
        let good = old.remove(&key).filter(|old| !old.findings().iter().any(spoils));
        let object = match good {
            Some(good) if !errors.is_empty() => {
                self.problems.extend(errors.into_iter().map(still_served));
                good
            }
            _ => {
                self.whole &= errors.is_empty();
                object
            }
        };
        self.objects.insert(key, object);
    }

    /// A document that names an object and cannot be understood.
    fn broken(&mut self, key: Option<Key>, finding: Finding, old: &mut BTreeMap<Key, Object>) {
        match key.and_then(|key| old.remove_entry(&key)) {
            Some((key, good)) => {
                self.problems.push(still_served(finding));
                self.objects.insert(key, good);
            }
            None => {
                self.whole = false;
                self.problems.push(finding);
            }
        }
    }
}

/// Whether an API server would have refused the object for this. A bad endpoint is not among it:
/// the others of its slice are worth more than the slice as it was.
fn spoils(finding: &Finding) -> bool {
    finding.severity == Severity::Error && !finding.field.starts_with("endpoints[")
}

fn still_served(finding: Finding) -> Finding {
    let problem = format!("{} (its last good version is served)", finding.problem);
    Finding { problem, ..finding }
}

fn text(path: &PathBuf) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        let problem = format!("it is larger than {} MiB; split it", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}
