//! Loads the object: maps that are pinned already are taken as they are, the others are made and
//! pinned, and the programs use them.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::maps::{MapInfo, ProgramArray};
use aya::programs::{Program, ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::Object;
use nodeport_common::abi::{Heap, SLOTS_OF_LINE, SLOTS_PER_ENTRY, SLOTS_PER_LINE, maps};
use rustix::process::Pid;
use rustix::thread::gettid;

use super::attach::Hook;
use super::maps::{open, shared};
use super::object;
use super::pins::Pins;
use super::sys::SharedArray;
use crate::config::Sizes;

/// Lines of the verifier's log that go into an error: the last ones name the instruction.
const VERIFIER_LINES: usize = 15;
/// How far behind all others those threads stand that load programs: what is listed and written
/// meanwhile goes first.
const BEHIND: i32 = 19;
/// How long they do. On a node whose CPUs are busy they would have a seventieth of one: without an end
/// to it, nothing was attached there for 20 seconds.
const BEHIND_FOR: Duration = Duration::from_secs(2);
/// Entries for each line of the index.
const ENTRIES_PER_LINE: u32 = (SLOTS_OF_LINE / SLOTS_PER_ENTRY) as u32;
/// Lines of the smallest index.
const FEWEST_LINES: u32 = 16;

/// Takes over the maps that are pinned, and makes the others.
pub(super) fn make_maps(pins: &Pins, sizes: &Sizes) -> anyhow::Result<Ebpf> {
    let bytes = object::bytes()?;
    let sizes = entries(sizes);
    check_pins(pins, bytes, &sizes)?;
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, entries) in &sizes {
        loader.map_max_entries(name, *entries);
    }
    let ebpf = loader.load(bytes).map_err(|error| {
        anyhow!(error).context(format!("making the maps in {}", pins.folder().display()))
    })?;
    for (index, [flows, lines]) in
        [[maps::FLOWS4, maps::INDEX4], [maps::FLOWS6, maps::INDEX6]].into_iter().enumerate()
    {
        prepare_table(pins, index as u32, flows, lines)?;
    }
    Ok(ebpf)
}

/// Loads the programs, on as many CPUs as there are: the kernel takes long to verify them.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let names =
        |hook: &Hook| [Some(hook.program()), Some(hook.slow_program()), hook.parts_program()];
    for name in Hook::ALL.iter().flat_map(names).flatten() {
        ensure!(ebpf.program(name).is_some(), "the object has no program {name}");
    }
    // More threads than CPUs would be no quicker, and all together less far behind.
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let waiting = Mutex::new(ebpf.programs_mut());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let start = |_| {
            let number = Arc::new(OnceLock::new());
            let here = Arc::clone(&number);
            let thread = scope.spawn(move || {
                // Refused, nothing is lost.
                let _ = rustix::process::nice(BEHIND);
                let _ = here.set(gettid());
                std::iter::from_fn(next).try_for_each(|(name, program)| load_program(name, program))
            });
            Loading { thread, number }
        };
        let loading: Vec<_> = (0..cpus).map(start).collect();
        catch_up(&loading);
        let panicked = |_| Err(anyhow!("the thread that loads programs has panicked"));
        loading.into_iter().try_for_each(|one| one.thread.join().unwrap_or_else(panicked))
    })?;
    drop(waiting);
    // The programs that run now may call these already: both do with any packet what they should.
    Hook::ALL.into_iter().try_for_each(|hook| {
        // The one that the other calls first.
        if let Some(program) = hook.parts_program() {
            link(ebpf, hook, PARTS, program)?;
        }
        link(ebpf, hook, SLOW, hook.slow_program())
    })
}

/// Where the quick program finds the one for what is not routine.
const SLOW: u32 = 0;
/// Where that one finds the one for fragments.
const PARTS: u32 = 1;

/// A thread that loads programs, and its number once it has begun.
struct Loading<'scope, T> {
    thread: ScopedJoinHandle<'scope, T>,
    number: Arc<OnceLock<Pid>>,
}

/// Puts threads that are not done in time on a level with all others.
fn catch_up<T>(loading: &[Loading<'_, T>]) {
    const PAUSE: Duration = Duration::from_millis(5);
    let all_done = || loading.iter().all(|one| one.thread.is_finished());
    let deadline = Instant::now() + BEHIND_FOR;
    while !all_done() && Instant::now() < deadline {
        thread::sleep(PAUSE);
    }
    for one in loading.iter().filter(|one| !one.thread.is_finished()) {
        if let Some(number) = one.number.get() {
            // Refused, it takes as long as it takes.
            let _ = rustix::process::setpriority_process(Some(*number), 0);
        }
    }
}

/// Writes where a table begins, unless it is in use.
fn prepare_table(pins: &Pins, index: u32, flows: &str, lines: &str) -> anyhow::Result<()> {
    let heaps: SharedArray<Heap> = shared(pins, maps::HEAP)?;
    let heap = heaps.read(index).context("the map heap has too few elements")?;
    if heap.entries != 0 {
        return Ok(());
    }
    let size = |name: &str| -> anyhow::Result<u32> {
        Ok(open(pins, name)?.info().with_context(|| name.to_owned())?.max_entries())
    };
    let lines = size(lines)? - 1;
    // Keys that std draws from the kernel's randomness.
    let seed = RandomState::new().build_hasher().finish();
    let wanted = Heap { seed, lines, entries: size(flows)?, ..Heap::default() };
    heaps.update(index, |heap| *heap = wanted);
    Ok(())
}

/// Puts a program where others of the hook find it.
fn link(ebpf: &mut Ebpf, hook: Hook, index: u32, program: &str) -> anyhow::Result<()> {
    let map = hook.jump_map();
    let fd = match ebpf.program(program) {
        Some(Program::Xdp(program)) => program.fd()?.try_clone()?,
        Some(Program::SchedClassifier(program)) => program.fd()?.try_clone()?,
        _ => bail!("the object has no program {program}"),
    };
    let map = ebpf.map_mut(map).with_context(|| format!("the object has no map {map}"))?;
    let set = ProgramArray::try_from(map).and_then(|mut array| array.set(index, &fd, 0));
    set.with_context(|| format!("putting {program} behind {}", hook.program()))
}

/// The program that ends flows, which is attached nowhere.
pub(super) fn expire_program(ebpf: &mut Ebpf) -> anyhow::Result<OwnedFd> {
    const NAME: &str = "nodeport_expire";
    let program = ebpf.program_mut(NAME).with_context(|| format!("the object has no {NAME}"))?;
    let program: &mut Xdp = program.try_into()?;
    let fd = program.fd()?.as_fd().try_clone_to_owned();
    fd.with_context(|| format!("keeping {NAME}"))
}

/// Sizes of the maps that the user chooses.
fn entries(sizes: &Sizes) -> [(&'static str, u32); 8] {
    let halves = sizes.flows * 2;
    let index = (halves / ENTRIES_PER_LINE).next_power_of_two().max(FEWEST_LINES);
    let lines = sizes.slots.div_ceil(SLOTS_PER_LINE as u32);
    [
        (maps::FLOWS4, halves),
        (maps::FLOWS6, halves),
        (maps::DETAILS4, halves),
        (maps::DETAILS6, halves),
        (maps::INDEX4, index),
        (maps::INDEX6, index),
        (maps::SLOTS, lines),
        (maps::WAITING, sizes.fragments),
    ]
}

/// Checks that what is pinned is what the programs expect; aya takes it unseen.
fn check_pins(pins: &Pins, bytes: &[u8], sizes: &[(&str, u32)]) -> anyhow::Result<()> {
    let object = Object::parse(bytes).context("the embedded object cannot be read")?;
    for name in maps::ALL {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let wanted = object.maps.get(name).with_context(|| format!("the object has no {name}"))?;
        let found = MapInfo::from_pin(&path).with_context(|| format!("{}", path.display()))?;
        let chosen = sizes.iter().find(|(sized, _)| *sized == name).map(|(_, entries)| *entries);
        let shapes = [
            Shape { kind: wanted.map_type(), key: wanted.key_size(), value: wanted.value_size() },
            Shape {
                kind: found.map_type()? as u32,
                key: found.key_size(),
                value: found.value_size(),
            },
        ];
        check_shape(name, shapes, pins)?;
        check_size(name, found.max_entries(), wanted.max_entries(), chosen, pins)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
}

fn check_shape(name: &str, [wanted, found]: [Shape; 2], pins: &Pins) -> anyhow::Result<()> {
    ensure!(
        wanted == found,
        "the pinned map {} is another than this agent's: {found:?}, expected {wanted:?}; {}",
        pins.map(name).display(),
        WAY_OUT
    );
    Ok(())
}

const WAY_OUT: &str = "run `nodeport-agent cleanup` with the agent that made it, or choose another \
                       --instance";

/// The maps whose sizes the user names.
const NAMED: [&str; 4] = [maps::FLOWS4, maps::FLOWS6, maps::SLOTS, maps::WAITING];

/// A size that the user chooses stays as it is while the map lives, for the flows in it.
fn check_size(
    name: &str,
    found: u32,
    built_in: u32,
    chosen: Option<u32>,
    pins: &Pins,
) -> anyhow::Result<()> {
    match chosen {
        // The maps beside them have sizes that follow.
        Some(wanted) if wanted != found && NAMED.contains(&name) => tracing::warn!(
            "{name} keeps its {found} entries, {wanted} were asked for: the size of a map that is \
             in use cannot change; `nodeport-agent cleanup` first, which ends the flows"
        ),
        None if found != built_in => bail!(
            "the pinned map {} has {found} entries, this agent expects {built_in}; {WAY_OUT}",
            pins.map(name).display()
        ),
        _ => {}
    }
    Ok(())
}

fn load_program(name: &str, program: &mut Program) -> anyhow::Result<()> {
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => bail!("{name} is neither of XDP nor of TC"),
    };
    loaded.map_err(|error| explain(name, error))
}

fn explain(name: &str, error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail = last_lines(&log, VERIFIER_LINES);
            anyhow!(
                "the kernel refuses the program {name}: {io_error}; the verifier's last words:\n{tail}"
            )
        }
        error => anyhow!(error).context(format!("loading the program {name}")),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use nodeport_common::core::table::slot::MOST_LINES;

    use super::*;
    use crate::config::MOST_FLOWS;

    #[test]
    fn the_end_of_a_log_is_shown() {
        assert_eq!(last_lines("a\nb\n\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn sizes_count_halves_and_lines() {
        let sizes = entries(&Sizes { flows: 1_000, slots: 33, fragments: 16 });
        let of = |name| sizes.iter().find(|(sized, _)| *sized == name).map(|(_, size)| *size);
        assert_eq!(of(maps::FLOWS4), Some(2_000));
        assert_eq!(of(maps::DETAILS6), Some(2_000));
        assert_eq!(of(maps::INDEX6), Some(256));
        assert_eq!(of(maps::SLOTS), Some(3));
        assert_eq!(of(maps::WAITING), Some(16));
        let smallest = entries(&Sizes { flows: 1, slots: 1, fragments: 16 });
        assert!(smallest.contains(&(maps::INDEX4, 16)));
        let largest = entries(&Sizes { flows: MOST_FLOWS, slots: 1, fragments: 16 });
        assert!(largest.contains(&(maps::INDEX4, MOST_LINES / 2)));
    }
}
