//! The README says what the code says.

use std::fs;

use nodeport_common::abi::Reason;
use xtask::workspace;

fn readme() -> String {
    fs::read_to_string(workspace::root().join("README.md")).expect("README.md")
}

#[test]
fn every_reason_is_explained() {
    let readme = readme();
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.label(), reason.description().trim());
        assert!(readme.contains(&row), "README.md lacks the row: {row}");
    }
}

#[test]
fn no_reason_is_explained_that_there_is_not() {
    let labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    let readme = readme();
    let table = readme.split("### Packets by reason").nth(1).expect("the table of reasons");
    let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
    for row in rows.take_while(|line| line.starts_with("| `")) {
        let label = row.split('`').nth(1).expect("a label");
        assert!(labels.contains(&label), "README.md explains {label}, which is no reason");
    }
}
