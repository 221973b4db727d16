//! From the text of a file to objects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::finding;
use crate::model::{Finding, Kind, Name, Node, Origin, RawSlice, Rules, Service, Severity, Slice};

/// Kind and name.
pub(super) type Key = (Kind, Name);

/// An object that stands in a file.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Service(Arc<Service>),
    Slice(Arc<Slice>),
    Node(Arc<Node>),
}

/// What a document turned out to be.
#[derive(Debug)]
pub(super) enum Document {
    /// An object that can be used, if perhaps not all of it, and what was passed over in it.
    Object(Key, Object, Vec<Finding>),
    /// Something that cannot be understood; the key, if that much is clear.
    Broken(Option<Key>, Finding),
    /// An object of a kind that is not for us.
    Foreign(Finding),
}

impl Object {
    pub(super) fn findings(&self) -> &[Finding] {
        match self {
            Self::Service(service) => &service.findings,
            Self::Slice(slice) => &slice.findings,
            Self::Node(node) => &node.findings,
        }
    }

    /// A finding about it as a whole. A Node that nobody needs is not worth one.
    pub(super) fn finding(&self, field: &str, problem: &str) -> Option<Finding> {
        let (origin, kind, object) = match self {
            Self::Service(one) => (one.origin.clone(), Kind::Service, one.name.clone()),
            Self::Slice(one) => (one.origin.clone(), Kind::EndpointSlice, one.name.clone()),
            Self::Node(_) => return None,
        };
        let (field, problem) = (field.to_owned(), problem.to_owned());
        Some(Finding { severity: Severity::Error, origin, kind, object, field, problem })
    }
}

/// Splits a file into its documents; the items of a List are documents too.
///
/// # Errors
/// If the text is not what it says it is, with the place in it.
pub(super) fn documents(path: &Path, text: &str) -> Result<Vec<Value>, String> {
    let json = path.extension().is_some_and(|extension| extension == "json");
    let values = if json { from_json(text) } else { from_yaml(text) }?;
    Ok(values.into_iter().flat_map(items).filter(|value| !value.is_null()).collect())
}

fn from_json(text: &str) -> Result<Vec<Value>, String> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.collect::<Result<_, _>>().map_err(|error| format!("broken JSON: {error}"))
}

fn from_yaml(text: &str) -> Result<Vec<Value>, String> {
    // The size of the text bounds most of what the budget is for; what stays are aliases that
    // blow up, and nesting.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 50_000_000,
            max_documents: 1_000_000,
        },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("broken YAML: {error}"))
}

fn items(mut value: Value) -> Vec<Value> {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List");
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        _ if is_list => Vec::new(),
        Some(items) => {
            value["items"] = items;
            vec![value]
        }
        None => vec![value],
    }
}

/// Reads one document.
pub(super) fn document(path: &Arc<PathBuf>, value: Value, rules: &Rules) -> Document {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("/kind").to_owned(), text("/apiVersion").to_owned());
    let name = name(&value);
    let Some((known, wanted)) = known(&kind) else {
        return foreign(path, &kind, name);
    };
    let name = if known == Kind::Node { Name::new("", &name.name) } else { name };
    let key = (known, name);
    if version != wanted {
        let problem = format!("{version:?} is not read; write {wanted}");
        return broken(path, key, "apiVersion", problem);
    }
    if key.1.name.is_empty() {
        let problem = "it has no name; give it one".to_owned();
        return broken(path, key, "metadata.name", problem);
    }
    match object(known, value, &Origin::File(path.clone()), rules) {
        Ok((object, unknown)) => {
            let remarks = unknown.into_iter().map(|field| unknown_field(path, &key, &field));
            let remarks = remarks.collect();
            Document::Object(key, object, remarks)
        }
        Err((field, problem)) => broken(path, key, &field, problem),
    }
}

fn name(value: &Value) -> Name {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = Some(text("/metadata/namespace")).filter(|namespace| !namespace.is_empty());
    Name::new(namespace.unwrap_or("default"), text("/metadata/name"))
}

fn known(kind: &str) -> Option<(Kind, &'static str)> {
    match kind {
        "Service" => Some((Kind::Service, "v1")),
        "EndpointSlice" => Some((Kind::EndpointSlice, "discovery.k8s.io/v1")),
        "Node" => Some((Kind::Node, "v1")),
        _ => None,
    }
}

fn foreign(path: &Arc<PathBuf>, kind: &str, name: Name) -> Document {
    let problem = match kind {
        "" => format!("object {name} has none; write Service, EndpointSlice or Node"),
        kind => format!(
            "{kind:?} of object {name} is not read and is passed over; Service, EndpointSlice and Node are"
        ),
    };
    let finding = finding(path, Kind::File, name, "kind", problem);
    Document::Foreign(Finding { severity: Severity::Warning, ..finding })
}

fn broken(path: &Arc<PathBuf>, key: Key, field: &str, problem: String) -> Document {
    let finding = finding(path, key.0, key.1.clone(), field, problem);
    Document::Broken((!key.1.name.is_empty()).then_some(key), finding)
}

fn unknown_field(path: &Arc<PathBuf>, key: &Key, field: &str) -> Finding {
    let problem = "there is no such field, it is passed over; look for a slip in its name";
    let finding = finding(path, key.0, key.1.clone(), field, problem.to_owned());
    Finding { severity: Severity::Warning, ..finding }
}

/// A field's path, and what is wrong there.
type Wrong = (String, String);

/// The object, and the paths of fields that no such object has.
fn object(
    kind: Kind,
    value: Value,
    origin: &Origin,
    rules: &Rules,
) -> Result<(Object, Vec<String>), Wrong> {
    let (origin, mut unknown) = (origin.clone(), Vec::new());
    let object = match kind {
        Kind::Service => {
            let read = typed::<core::Service>(value, &mut unknown)?;
            Object::Service(Arc::new(Service::new(&read, origin, rules)))
        }
        Kind::EndpointSlice => {
            let read = typed::<EndpointSlice>(value, &mut unknown)?;
            Object::Slice(Arc::new(Slice::new(&RawSlice::from(&read), origin)))
        }
        _ => {
            let read = typed::<core::Node>(value, &mut unknown)?;
            Object::Node(Arc::new(Node::new(&read, origin)))
        }
    };
    Ok((object, unknown))
}

/// Reads a value as an object of the API.
fn typed<T: DeserializeOwned>(value: Value, unknown: &mut Vec<String>) -> Result<T, Wrong> {
    // The path of a field inside an optional one has a question mark in it.
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.push(path.to_string().replace(".?", "").replace("?.", ""));
    };
    let deserializer = serde_ignored::Deserializer::new(value, &mut note);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        (path, error.into_inner().to_string())
    })
}
