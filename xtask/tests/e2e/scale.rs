//! `bench scale` with few of everything: what it tells is held against what must come out, however
//! quick the machine is.

use anyhow::{Context as _, Result};
use xtask::bench::Output;
use xtask::bench::scale::{Figure, Options, measure};
use xtask::lab::Mode;

use crate::site::check;

/// The agent chooses the hook itself.
pub(crate) const CASE: (&str, fn(Mode) -> Result<()>) = ("the scale bench tells what is", small);

fn small(_: Mode) -> Result<()> {
    let options = Options {
        rounds: 2,
        services: vec![1, 40],
        endpoints: 3,
        rate: 100,
        seconds: 1,
        flows: 1_024,
        output: Output::default(),
    };
    // This fails by itself if an endpoint, a change or a flow is missing.
    let figures = measure(&options)?;
    for count in options.services {
        let of = |name| median(&figures, name, count);
        // A backend, the slots, the frontend; later the one that went. Where services change again
        // before that, the file of the agent's own count may be a moment behind.
        let writes = of("map-writes-per-change")?;
        check((2.0..=5.0).contains(&writes), || format!("{writes} writes for each change"))?;
        check(of("change-p50")? <= of("change-p99")?, || "quantiles out of order".to_owned())?;
        check(of("first-sync")? <= of("first-served")?, || "served before it was".to_owned())?;
        // 24 Mi slots of four bytes are the most of it.
        let maps = of("service-maps")?;
        check((96.0..256.0).contains(&maps), || format!("{maps} MiB of maps"))?;
    }
    let bytes = median(&figures, "bytes-per-flow", options.flows)?;
    // Two halves with 64 bytes each, their details and at least two slots of the index for each.
    check((160.0..=400.0).contains(&bytes), || format!("{bytes} bytes for each flow"))?;
    let (whole, step) = (
        median(&figures, "sweep", options.flows)?,
        median(&figures, "sweep-longest-step", options.flows)?,
    );
    check(step <= whole, || format!("a step of {step} ms in a sweep of {whole} ms"))
}

fn median(figures: &[Figure], name: &str, count: u32) -> Result<f64> {
    let found = figures.iter().find(|one| one.name == name && one.count == count);
    found.map(|one| one.value.median).with_context(|| format!("no figure {name} of {count}"))
}
