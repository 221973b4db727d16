//! Rules that every crate keeps.

use std::fs;

use xtask::workspace::root;

fn manifests() -> Vec<(String, toml::Table)> {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = toml::from_str(&text).unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let read = |member: &toml::Value| {
        let name = member.as_str().unwrap().to_owned();
        let text = fs::read_to_string(root().join(&name).join("Cargo.toml")).unwrap();
        (name, toml::from_str(&text).unwrap())
    };
    members.iter().map(read).collect()
}

#[test]
fn every_crate_inherits_the_lints() {
    for (name, manifest) in manifests() {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            lints,
            Some(&true.into()),
            "{name} has lints of its own: [lints] workspace = true"
        );
    }
}

#[test]
fn every_crate_has_the_licence_and_is_not_published() {
    for (name, manifest) in manifests() {
        for field in ["license", "publish", "version", "rust-version"] {
            let inherits = manifest["package"].get(field).and_then(|value| value.get("workspace"));
            assert_eq!(inherits, Some(&true.into()), "{name}: {field}.workspace = true");
        }
    }
}
