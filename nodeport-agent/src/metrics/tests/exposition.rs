//! Reads OpenMetrics text, strictly, and holds it to the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use super::super::catalog::{self, Kind, Metric};

/// A scrape, read back.
#[derive(Debug, Default)]
pub(super) struct Exposition(BTreeMap<String, BTreeMap<BTreeMap<String, String>, f64>>);

impl Exposition {
    /// The value of a series.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: BTreeMap<_, _> = labels.iter().map(of).collect();
        let all = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        *all.get(&labels).unwrap_or_else(|| panic!("{name}: no {labels:?} in {all:?}"))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many series of that name there are.
    pub(super) fn count(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, BTreeMap::len)
    }
}

/// Reads all of it.
pub(super) fn read(text: &str) -> Exposition {
    let (body, end) = text.rsplit_once("# EOF\n").expect("an end");
    assert_eq!(end, "");
    let (mut seen, mut families) = (Exposition::default(), BTreeSet::new());
    let mut lines = body.lines().peekable();
    while let Some(help) = lines.next() {
        let name = help.strip_prefix("# HELP ").expect(help).split(' ').next().unwrap();
        assert!(families.insert(name), "{name} is there twice");
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).expect(name);
        let metric = metric(name, kind);
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, labels, value) = sample(line);
            assert!(metric.series().contains(&series), "{line}");
            let expected: BTreeSet<_> =
                metric.labels.iter().map(|name| (*name).to_owned()).collect();
            let found: BTreeSet<_> = labels.keys().filter(|name| *name != "le").cloned().collect();
            assert_eq!(found, expected, "{line}");
            let old = seen.0.entry(series).or_default().insert(labels, value);
            assert_eq!(old, None, "{line}: there twice");
        }
    }
    seen
}

fn metric(name: &str, kind: &str) -> &'static Metric {
    let is_it = |metric: &&Metric| match metric.kind {
        Kind::Counter => kind == "counter" && metric.name.strip_suffix("_total") == Some(name),
        Kind::Histogram => kind == "histogram" && metric.name == name,
        Kind::Gauge | Kind::Info => kind == "gauge" && metric.name == name,
    };
    catalog::ALL.iter().find(is_it).unwrap_or_else(|| panic!("{name}, a {kind}, in no catalogue"))
}

/// Name, labels and value of a line.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"").expect(line);
            let (value, after) = unescaped(value);
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    (name.to_owned(), labels, rest.strip_prefix(' ').expect(line).parse().expect(line))
}

/// The text up to the closing quote, and what is behind that.
fn unescaped(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    panic!("{text}: no end")
}
