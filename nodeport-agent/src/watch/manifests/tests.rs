//! A folder, from its files to what the store tells.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::model::Service;
use crate::model::testing::{name, rules};
use crate::watch::Snapshot;

/// The manifest of the README, without anything that an API server would add.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: my-service-nodeport
spec:
  type: NodePort
  selector:
    tier: frontend
  ports:
    - port: 80
      targetPort: 80
      nodePort: 30007
";

const NODE: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

struct Lab {
    folder: TempDir,
    watched: Folder,
    store: Store,
    /// All services, as the snapshots told them.
    services: BTreeMap<Name, (Option<Arc<Service>>, usize)>,
    last: Snapshot,
}

impl Lab {
    /// A folder with these files, looked at until they count.
    fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        let folder = TempDir::new().unwrap();
        files.iter().for_each(|(file, text)| fs::write(folder.path().join(file), text).unwrap());
        let mut watched = Folder::new(folder.path().to_owned(), "n1".into(), rules(), false);
        let store = Store::default();
        (0..2).for_each(|_| watched.look(&store, Instant::now()));
        let last = store.take(Instant::now()).expect("a folder at rest is listed by two looks");
        let mut lab = Self { folder, watched, store, services: BTreeMap::new(), last };
        lab.note();
        lab
    }

    fn note(&mut self) {
        for (name, entry) in &self.last.update.entries {
            self.services.insert(name.clone(), (entry.service.clone(), entry.slices.len()));
        }
    }

    /// Looks until what changed counts.
    fn look(&mut self) {
        for _ in 0..2 {
            self.watched.look(&self.store, Instant::now());
        }
        self.last = self.store.take(Instant::now()).unwrap();
        self.note();
    }

    fn write(&mut self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
        self.look();
    }

    fn service(&self, named: &str) -> Option<&Service> {
        self.services.get(&name(named))?.0.as_deref()
    }

    fn problems(&self) -> Vec<String> {
        let path = format!("{}/", self.folder.path().display());
        self.last.problems.iter().map(|one| one.to_string().replace(&path, "")).collect()
    }
}

fn node_port(port: &str) -> String {
    SERVICE.replace("30007", port)
}

#[test]
fn the_shortest_manifest_is_taken_word_for_word() {
    let lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
    let service = lab.service("my-service-nodeport").unwrap();
    assert_eq!(service.ports[0].node_port, Some(30007));
    assert_eq!(lab.last.update.node.as_ref().unwrap().addresses.len(), 1);
    assert!(lab.last.complete);
    assert_eq!(lab.problems(), [""; 0]);
}

#[test]
fn one_file_may_hold_many_documents_and_lists() {
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: b}}]}";
    let text = format!("---\n{SERVICE}---\n---\n{NODE}---\n{list}\n");
    let lab = Lab::new([("all.yml", &text)]);
    assert!(lab.service("my-service-nodeport").is_some());
    assert!(lab.service("b").is_some());
    assert_eq!(lab.problems(), [""; 0]);
}

#[test]
fn json_is_read_and_other_files_are_not() {
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "j"}}"#;
    let lab = Lab::new([
        ("a.json", json),
        ("n.yaml", NODE),
        ("b.txt", SERVICE),
        (".hidden.yaml", SERVICE),
    ]);
    assert_eq!(lab.services.keys().cloned().collect::<Vec<_>>(), [name("j")]);
}

#[test]
fn edits_new_files_and_removals_count() {
    let mut lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
    lab.write("web.yaml", &node_port("30009"));
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30009));
    lab.write("more.yaml", &SERVICE.replace("my-service-nodeport", "more"));
    assert!(lab.service("more").is_some());
    fs::remove_file(lab.folder.path().join("web.yaml")).unwrap();
    lab.look();
    assert!(lab.service("my-service-nodeport").is_none());
    assert!(lab.service("more").is_some());
}

#[test]
fn a_file_that_is_being_replaced_is_left_alone_until_that_is_done() {
    let mut lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
    let path = lab.folder.path().join("web.yaml");
    fs::rename(&path, lab.folder.path().join("web.yaml~")).unwrap();
    lab.watched.look(&lab.store, Instant::now());
    fs::write(&path, "").unwrap();
    lab.watched.look(&lab.store, Instant::now());
    fs::write(&path, node_port("30010")).unwrap();
    lab.watched.look(&lab.store, Instant::now());
    assert!(lab.store.take(Instant::now()).unwrap().update.entries.is_empty());
    lab.look();
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30010));
}

#[test]
fn a_file_that_is_being_written_at_the_start_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.yaml");
    let mut watched = Folder::new(folder.path().to_owned(), "n1".into(), rules(), true);
    let (store, start) = (Store::default(), Instant::now());
    for text in ["", "kind: Ser", SERVICE] {
        fs::write(&path, text).unwrap();
        watched.look(&store, start);
        assert!(store.take(Instant::now()).is_none(), "{text}");
    }
    watched.look(&store, start);
    let snapshot = store.take(Instant::now()).unwrap();
    assert_eq!(snapshot.update.entries.len(), 1);
    assert!(snapshot.complete);
}

#[test]
fn a_file_that_never_rests_does_not_keep_the_others_waiting() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("web.yaml"), SERVICE).unwrap();
    let mut watched = Folder::new(folder.path().to_owned(), "n1".into(), rules(), true);
    let (store, start) = (Store::default(), Instant::now());
    for look in 0..3 {
        fs::write(folder.path().join("busy.yaml"), "#".repeat(look)).unwrap();
        watched.look(&store, start);
    }
    assert!(store.take(Instant::now()).is_none());
    fs::write(folder.path().join("busy.yaml"), "# and more").unwrap();
    watched.look(&store, start + DOUBTING);
    let snapshot = store.take(Instant::now()).unwrap();
    assert_eq!((snapshot.update.entries.len(), snapshot.complete), (1, false));
    watched.look(&store, start + DOUBTING);
    assert!(store.take(Instant::now()).unwrap().complete);
}

#[test]
fn an_empty_folder_is_not_believed_at_once_where_something_was_served() {
    let folder = TempDir::new().unwrap();
    for adopted in [true, false] {
        let mut watched = Folder::new(folder.path().to_owned(), "n1".into(), rules(), adopted);
        let (store, start) = (Store::default(), Instant::now());
        (0..2).for_each(|_| watched.look(&store, start));
        let snapshot = store.take(Instant::now()).unwrap();
        assert_eq!(snapshot.complete, !adopted);
        let is_said = |snapshot: &Snapshot| {
            snapshot.problems.iter().any(|one| one.to_string().contains("has no manifests"))
        };
        assert_eq!(is_said(&snapshot), adopted);
        watched.look(&store, start + DOUBTING);
        let snapshot = store.take(Instant::now()).unwrap();
        assert!(snapshot.complete && !is_said(&snapshot));
    }
}

#[test]
fn a_file_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone() {
    let mut lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
    let path = lab.folder.path().join("web.yaml");
    fs::remove_file(&path).unwrap();
    symlink("web.yaml", &path).unwrap();
    lab.look();
    assert!(lab.service("my-service-nodeport").is_some());
    assert!(lab.last.complete);
    let problems = lab.problems();
    assert!(problems[0].starts_with("web.yaml: it cannot be looked at"), "{problems:?}");
    symlink("other.yaml", lab.folder.path().join("other.yaml")).unwrap();
    lab.look();
    assert!(!lab.last.complete, "nothing is known of the other");
    fs::remove_file(lab.folder.path().join("other.yaml")).unwrap();
    fs::remove_file(&path).unwrap();
    lab.look();
    assert!(lab.service("my-service-nodeport").is_none());
    assert!(lab.last.complete);
    assert_eq!(lab.problems(), [""; 0]);
}

#[test]
fn a_volume_whose_content_is_swapped_by_a_link_is_followed() {
    let mut lab = Lab::new([("node.yaml", NODE)]);
    let folder = lab.folder.path().to_owned();
    for (version, port) in [("..1", "30001"), ("..2", "30002")] {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("web.yaml"), node_port(port)).unwrap();
    }
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/web.yaml", folder.join("web.yaml")).unwrap();
    lab.look();
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30001));
    symlink("..2", folder.join("..tmp")).unwrap();
    fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
    lab.look();
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30002));
}

#[test]
fn broken_files_keep_their_last_good_version_and_say_what_is_wrong() {
    for (text, parts) in [
        ("kind: [", &["web.yaml: ", "its last good version is served", "broken YAML"][..]),
        ("a: 1\na: 2\n", &["web.yaml: ", "broken YAML"]),
        (
            &node_port("70000"),
            &["Service default/my-service-nodeport: spec.ports[0].nodePort: 70000"],
        ),
        (&node_port("0"), &["spec.ports[0].nodePort: none given"]),
        (&node_port("29999"), &["spec.ports[0].nodePort: 29999 is outside --node-port-range"]),
        (
            &node_port("many"),
            &[
                "web.yaml: Service default/my-service-nodeport: spec.ports[0].nodePort: invalid type",
            ],
        ),
        (&SERVICE.replace("port: 80", "port: 0"), &["spec.ports[0].port: 0 is not a port"]),
        (
            &SERVICE.replace("apiVersion: v1", "apiVersion: v2"),
            &["apiVersion: \"v2\" is not read; write v1"],
        ),
    ] {
        let mut lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
        lab.write("web.yaml", text);
        let port =
            lab.service("my-service-nodeport").and_then(|service| service.ports[0].node_port);
        assert_eq!(port, Some(30007), "{text}");
        let problems = lab.problems().join("\n");
        for part in parts {
            assert!(problems.contains(part), "{text}: {problems}");
        }
        assert!(lab.last.complete, "all that is in the file was known before");
        lab.write("web.yaml", SERVICE);
        assert_eq!(lab.problems(), [""; 0]);
    }
}

#[test]
fn a_bad_document_leaves_the_others_of_its_file() {
    let text =
        format!("{}---\n{}", node_port("nonsense"), SERVICE.replace("my-service-nodeport", "good"));
    let lab = Lab::new([("web.yaml", &text), ("node.yaml", NODE)]);
    assert!(lab.service("good").is_some());
    assert!(lab.service("my-service-nodeport").is_none());
    assert!(!lab.last.complete, "something is not known");
}

#[test]
fn kinds_that_are_not_for_us_are_passed_over_with_a_word() {
    let text = format!(
        "kind: Deployment\nmetadata: {{name: d}}\n---\n{SERVICE}---\nmetadata: {{name: x}}\n"
    );
    let lab = Lab::new([("web.yaml", &text), ("node.yaml", NODE)]);
    assert!(lab.service("my-service-nodeport").is_some());
    let problems = lab.problems();
    assert!(
        problems[0].starts_with("web.yaml: kind: \"Deployment\" of object default/d"),
        "{problems:?}"
    );
    assert!(problems[1].starts_with("web.yaml: kind: object default/x has none"), "{problems:?}");
    assert!(lab.last.complete);
}

#[test]
fn a_slip_in_the_name_of_a_field_is_pointed_at() {
    let slip = SERVICE.replace("nodePort: 30007", "nodePort: 30007\n      nodeport: 1");
    let lab = Lab::new([("web.yaml", &slip), ("node.yaml", NODE)]);
    assert!(lab.service("my-service-nodeport").is_some());
    let problems = lab.problems();
    let wanted = "web.yaml: Service default/my-service-nodeport: spec.ports.0.nodeport: there is no such field";
    assert!(problems[0].starts_with(wanted), "{problems:?}");
}

#[test]
fn an_object_in_two_files_counts_once() {
    let mut lab =
        Lab::new([("a.yaml", SERVICE), ("b.yaml", &node_port("30008")), ("n.yaml", NODE)]);
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30007));
    let problems = lab.problems();
    assert!(problems[0].starts_with("b.yaml: Service default/my-service-nodeport"), "{problems:?}");
    fs::remove_file(lab.folder.path().join("a.yaml")).unwrap();
    lab.look();
    assert_eq!(lab.service("my-service-nodeport").unwrap().ports[0].node_port, Some(30008));
    assert_eq!(lab.problems(), [""; 0]);
}

#[test]
fn a_missing_node_is_named_and_a_lost_one_stays_known() {
    let lab = Lab::new([("node.yaml", &NODE.replace("n1", "n2"))]);
    assert!(
        lab.problems()[0].contains("Node n1: no file has a Node of this name"),
        "{:?}",
        lab.problems()
    );
    let mut lab = Lab::new([("node.yaml", NODE)]);
    fs::remove_file(lab.folder.path().join("node.yaml")).unwrap();
    lab.look();
    assert!(lab.last.update.node.is_some());
    assert_eq!(lab.problems().len(), 1);
}

#[test]
fn a_folder_that_vanishes_changes_nothing() {
    let mut lab = Lab::new([("web.yaml", SERVICE), ("node.yaml", NODE)]);
    fs::remove_dir_all(lab.folder.path()).unwrap();
    lab.look();
    assert!(lab.service("my-service-nodeport").is_some());
    assert!(lab.problems()[0].contains("the folder cannot be read"), "{:?}", lab.problems());
    fs::create_dir(lab.folder.path()).unwrap();
    lab.write("node.yaml", NODE);
    assert!(lab.service("my-service-nodeport").is_none());
    assert_eq!(lab.problems(), [""; 0]);
}

#[test]
fn ten_thousand_endpoints_in_one_file_are_read() {
    let mut text = String::from(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: big\n  \
         labels: {kubernetes.io/service-name: big}\naddressType: IPv4\nports: [{port: 80}]\n\
         endpoints:\n",
    );
    for number in 0..10_000 {
        text +=
            &format!("  - addresses: [10.1.{}.{}]\n    nodeName: n1\n", number / 250, number % 250);
    }
    let lab = Lab::new([("big.yaml", &text), ("node.yaml", NODE)]);
    assert_eq!(lab.problems(), [""; 0]);
    let slices = &lab.last.update.entries[&name("big")].slices;
    assert_eq!(slices[0].endpoints.len(), 10_000);
}
