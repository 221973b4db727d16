//! README.md and ARCHITECTURE.md say what the code says.

use std::fs;

use nodeport_common::abi::{LAYOUT_VERSION, Reason, maps};
use xtask::workspace;

fn read(name: &str) -> String {
    fs::read_to_string(workspace::root().join(name)).expect(name)
}

fn readme() -> String {
    read("README.md")
}

#[test]
fn maps_are_where_it_says() {
    let readme = readme();
    let paths: Vec<_> = readme.split("/sys/fs/bpf/nodeport/").skip(1).collect();
    assert!(!paths.is_empty(), "README.md names no map");
    for path in paths {
        let path: Vec<_> = path.split([' ', '`']).next().expect("a path").split('/').collect();
        let [_, layout, map] = path[..] else { panic!("{path:?} is not INSTANCE/vLAYOUT/MAP") };
        assert_eq!(layout, format!("v{LAYOUT_VERSION}"), "README.md: {path:?}");
        assert!(maps::ALL.contains(&map), "README.md: {path:?}");
    }
}

#[test]
fn every_map_has_its_row() {
    let text = read("ARCHITECTURE.md");
    let table = text.split("## Maps").nth(1).expect("the maps").split("\n## ").next();
    let rows = table.expect("a table").lines().filter_map(|line| line.strip_prefix("| `"));
    let names: Vec<_> = rows
        .flat_map(|row| row.split('|').next().unwrap_or_default().split(['`', ',', ' ']))
        .filter(|name| !name.is_empty())
        .collect();
    for map in maps::ALL {
        assert!(names.contains(&map), "ARCHITECTURE.md lacks {map}");
    }
    for name in names {
        let is_map = maps::ALL.contains(&name) || matches!(name, "work4" | "work6");
        assert!(is_map, "ARCHITECTURE.md has {name}, which is no map");
    }
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

#[test]
fn charts_are_there() {
    let readme = readme();
    let charts: Vec<_> = readme.split("](docs/charts/").skip(1).collect();
    assert!(!charts.is_empty(), "README.md shows no chart");
    for chart in charts {
        let name = chart.split(')').next().expect("a name");
        let text = read(&format!("docs/charts/{name}"));
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{name}");
    }
}
