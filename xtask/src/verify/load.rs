//! Loads programs through aya, as the agent does, and a second time by hand.
//!
//! The second time is for the stack depth, which the kernel tells in its log alone: aya asks for
//! a log only after a load has failed. Maps and relocations are those of the first.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use aya::programs::{Program, ProgramError, ProgramInfo};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel, features};
use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, bpf_attach_type};
use aya_obj::{Object, ProgramSection};

use super::kernel::{self, Attributes};
use super::names;
use super::stack::{self, Chain, Rounding};
use super::statistics::{self, Statistics};

/// A program that the verifier has accepted.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub name: String,
    pub kind: String,
    /// As the kernel reports it for the loaded program.
    pub instructions: Option<u32>,
    pub statistics: Statistics,
    /// The deepest chain of calls, as kernels since 6.9 count.
    pub stack: Option<Chain>,
    /// The same, as kernels before 6.9 count.
    pub stack_before: Option<Chain>,
    /// Names of functions by their first instruction.
    pub names: HashMap<usize, String>,
}

/// Loads every program of an object; nothing is attached, nothing stays.
pub(super) fn programs(bytes: &[u8]) -> Result<Vec<Verified>> {
    let level = VerifierLogLevel::STATS;
    let mut ebpf = EbpfLoader::new().verifier_log_level(level).load(bytes).context("load maps")?;
    let infos = load_all(&mut ebpf)?;
    let object = relocate(bytes, &ebpf)?;
    let types = object.btf.as_ref().map(|btf| names::of_types(&btf.to_bytes())).unwrap_or_default();
    let btf =
        infos.iter().find_map(|(_, info)| info.btf_id()).map(kernel::btf_by_id).transpose()?;
    let again = Again { object, types, btf };
    infos.iter().map(|(name, info)| again.verified(name, info)).collect()
}

/// Goes on after a failure: who mends one program wants to know about the others.
fn load_all(ebpf: &mut Ebpf) -> Result<Vec<(String, ProgramInfo)>> {
    let mut infos = Vec::new();
    let mut failures = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        match load(program).and_then(|()| program.info()) {
            Ok(info) => infos.push((name.to_owned(), info)),
            Err(error) => failures.push(explain(name, error)),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    infos.sort_by(|(first, _), (second, _)| first.cmp(second));
    Ok(infos)
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The verifier says why at the end of a log that may have a hundred thousand lines.
fn explain(name: &str, error: ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return format!("load {name}: {:#}", anyhow::Error::new(error));
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(40)..].join("\n");
    format!("load {name}: {io_error}; the verifier's last words:\n{last}")
}

/// What aya does between parsing and loading, with the maps that it has made.
fn relocate(bytes: &[u8], ebpf: &Ebpf) -> Result<Object> {
    let mut object = Object::parse(bytes).context("parse the object")?;
    if let Some(features) = features().btf() {
        object.fixup_and_sanitize_btf(features).context("fix the object's BTF")?;
    }
    if object.has_btf_relocations() {
        let btf = Btf::from_sys_fs().context("read the kernel's BTF")?;
        object.relocate_btf(&btf).context("relocate to the kernel's types")?;
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps: Vec<_> = object.maps.drain().collect();
    let mut located = Vec::new();
    for (name, map) in &maps {
        let made = ebpf.map(name).with_context(|| format!("aya made no map {name}"))?;
        located.push((name.as_str(), descriptor(name, made)?, map));
    }
    object.relocate_maps(located.into_iter(), &text).context("relocate to maps")?;
    object.relocate_calls(&text).context("relocate calls")?;
    object.sanitize_functions(features());
    Ok(object)
}

fn descriptor(name: &str, map: &Map) -> Result<RawFd> {
    let (Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::DevMap(data)
    | Map::DevMapHash(data)
    | Map::HashMap(data)
    | Map::HashOfMaps(data)
    | Map::LpmTrie(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuHashMap(data)
    | Map::PerCpuLruHashMap(data)
    | Map::ProgramArray(data)
    | Map::RingBuf(data)
    | Map::SkStorage(data)
    | Map::Unsupported(data)) = map
    else {
        bail!("map {name} is of a kind that `verify` does not know: add it in verify/load.rs");
    };
    Ok(data.fd().as_fd().as_raw_fd())
}

/// What the second load needs.
struct Again {
    object: Object,
    /// Names of types in the object's BTF.
    types: Vec<String>,
    btf: Option<OwnedFd>,
}

impl Again {
    fn verified(&self, name: &str, info: &ProgramInfo) -> Result<Verified> {
        let program = self.object.programs.get(name);
        let program = program.with_context(|| format!("no program {name}"))?;
        let function = self.object.functions.get(&program.function_key());
        let function = function.with_context(|| format!("no code of {name}"))?;
        let (kind, attach_type, flags) = kind(&program.section);
        let attributes = Attributes {
            kind: info.program_type(),
            attach_type,
            flags,
            license: &program.license,
            function,
            btf: self.btf.as_ref(),
        };
        let log = kernel::load(&attributes).with_context(|| format!("load {name} once more"))?;
        let statistics = statistics::parse(&log).with_context(|| format!("log of {name}"))?;
        let stack = |rounding| stack::deepest(&function.instructions, &statistics.stack, rounding);
        Ok(Verified {
            name: name.to_owned(),
            kind,
            instructions: info.verified_instruction_count(),
            stack: stack(Rounding::Compiled),
            stack_before: stack(Rounding::Interpreter),
            names: names::of_functions(function, &self.types),
            statistics,
        })
    }
}

/// Name, attach type and flags, as aya derives them from the section.
fn kind(section: &ProgramSection) -> (String, Option<bpf_attach_type>, u32) {
    match section {
        ProgramSection::Xdp { frags: true, attach_type } => {
            ("XDP, fragments".to_owned(), Some((*attach_type).into()), BPF_F_XDP_HAS_FRAGS)
        }
        ProgramSection::Xdp { frags: false, attach_type } => {
            ("XDP".to_owned(), Some((*attach_type).into()), 0)
        }
        ProgramSection::SchedClassifier => ("TC".to_owned(), None, 0),
        ProgramSection::CgroupSockAddr { attach_type } => {
            (format!("cgroup {attach_type:?}"), Some((*attach_type).into()), 0)
        }
        ProgramSection::CgroupSock { attach_type } => {
            (format!("cgroup {attach_type:?}"), Some((*attach_type).into()), 0)
        }
        other => (format!("{other:?}"), None, 0),
    }
}
