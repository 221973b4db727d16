//! Runs the benchmark's programs in the kernel, on one processor, in a network namespace of their
//! own.

use std::mem::offset_of;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, DevMap};
use aya::programs::{
    ProgramError, SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CloneFlags, unshare};
use nodeport_common::abi::{Exit, SLOTS_OF_LINE, SLOTS_PER_ENTRY, maps};

use crate::{command, processor, workspace};

/// Elements of the programs' configuration (`nodeport-ebpf/src/bench/fresh.rs`).
const MASK: u32 = 0;
const PORT: u32 = 1;
const IFINDEX: u32 = 2;
const IN_ORDER: u32 = 3;
const LINES: u32 = 4;
const ENTRIES: u32 = 5;

/// A program type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

impl Hook {
    /// Its name in programs, tables and JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// The loaded object with its maps filled.
pub(super) struct Runner {
    ebpf: Ebpf,
    flows: u32,
    packets: u32,
    entries: u32,
}

impl Runner {
    /// Loads the object and stores `flows` established flows of each family. To be called on a
    /// thread that [`isolate`] has prepared.
    pub(super) fn new(flows: u32, packets: u32) -> Result<Self> {
        ensure!(flows.is_power_of_two(), "--flows {flows}: not a power of two");
        let path = workspace::bench_object();
        let entries = (flows * 2).next_power_of_two().max(maps::FLOW_ENTRIES as u32);
        let lines = (entries * SLOTS_PER_ENTRY as u32 / SLOTS_OF_LINE as u32).next_power_of_two();
        let ebpf = EbpfLoader::new()
            .map_max_entries(maps::FLOWS4, entries)
            .map_max_entries(maps::FLOWS6, entries)
            .map_max_entries(maps::DETAILS4, entries)
            .map_max_entries(maps::DETAILS6, entries)
            .map_max_entries(maps::INDEX4, lines)
            .map_max_entries(maps::INDEX6, lines)
            .map_max_entries("lookup4", entries)
            .map_max_entries("lookup6", entries)
            .load_file(&path)
            .with_context(|| format!("load {} (`cargo xtask build` makes it)", path.display()))?;
        let mut runner = Self { ebpf, flows, packets, entries };
        runner.load()?;
        runner.link()?;
        runner.configure(MASK, u64::from(flows) - 1)?;
        runner.configure(PORT, 30_007)?;
        runner.configure(LINES, u64::from(lines))?;
        runner.configure(ENTRIES, u64::from(entries))?;
        runner.configure(IFINDEX, u64::from(nix::net::if_::if_nametoindex(DEVICE)?))?;
        runner.expect("settings", Hook::Xdp, &[0; 64], 1, XDP_TX)?;
        for family in [4, 6] {
            runner.fill(family)?;
        }
        Ok(runner)
    }

    /// Stores the flows.
    fn fill(&mut self, family: u8) -> Result<()> {
        self.set_new(false)?;
        self.expect(&format!("fill{family}"), Hook::Xdp, &[0; 64], self.flows, XDP_TX)
    }

    /// Forgets all flows.
    fn forget(&mut self, family: u8) -> Result<()> {
        self.set_new(true)?;
        self.expect(&format!("forget{family}"), Hook::Xdp, &[0; 64], self.entries, XDP_TX)
    }

    fn load(&mut self) -> Result<()> {
        for (name, program) in self.ebpf.programs_mut() {
            let loaded = match program {
                aya::programs::Program::Xdp(program) => program.load(),
                aya::programs::Program::SchedClassifier(program) => program.load(),
                _ => bail!("{name}: neither XDP nor TC"),
            };
            loaded.with_context(|| format!("load {name}"))?;
        }
        Ok(())
    }

    /// Tells the programs where what is not routine goes.
    fn link(&mut self) -> Result<()> {
        for (map, program) in [("jump_xdp", "slow_xdp"), ("jump_ingress", "slow_ingress")] {
            let program = self.ebpf.program(program).context("no slow program")?;
            let fd = program.fd()?.try_clone()?;
            let map = self.ebpf.map_mut(map).context("no such map")?;
            aya::maps::ProgramArray::try_from(map)?.set(0, &fd, 0)?;
        }
        Ok(())
    }

    fn configure(&mut self, index: u32, value: u64) -> Result<()> {
        let map = self.ebpf.map_mut("bench_config").context("bench_config: no such map")?;
        let mut array: Array<_, u64> = Array::try_from(map)?;
        array.set(index, value, 0).with_context(|| format!("write bench_config[{index}]"))
    }

    /// Sets the destination port of the packets to come.
    pub(super) fn set_port(&mut self, port: u16) -> Result<()> {
        self.configure(PORT, u64::from(port))
    }

    /// Whether the packets to come are of flows that were never seen.
    pub(super) fn set_new(&mut self, new: bool) -> Result<()> {
        self.configure(IN_ORDER, u64::from(new))
    }

    /// Nanoseconds per packet of a program, and its last verdict. Every flow is met once before, as
    /// live flows are: one that was silent for some seconds is looked at more closely.
    pub(super) fn time(&self, name: &str, hook: Hook, frame: &[u8]) -> Result<(u64, u32)> {
        self.test_run(name, hook, frame, self.flows)?;
        self.test_run(name, hook, frame, self.packets)
    }

    /// Nanoseconds per packet of a program to which every packet opens a flow, in a table that was
    /// empty, and its last verdict. Then the table is as before.
    pub(super) fn time_new(
        &mut self,
        name: &str,
        hook: Hook,
        frame: &[u8],
        family: u8,
    ) -> Result<(u64, u32)> {
        self.forget(family)?;
        let timed = self.test_run(name, hook, frame, self.flows)?;
        self.forget(family)?;
        self.fill(family)?;
        Ok(timed)
    }

    /// Has the stored flows leave by the device of live frames: in other runs frames come in at,
    /// and leave by, the loopback.
    pub(super) fn leave_by_device(&mut self) -> Result<()> {
        /// The exit that the stored flows have (`nodeport-ebpf/src/bench/fill.rs`).
        const EXIT: u32 = 1;
        let map = self.ebpf.map_mut(maps::EXITS).context("no map of exits")?;
        let mut exits: Array<_, [u8; size_of::<Exit>()]> = Array::try_from(map)?;
        let mut exit = exits.get(&EXIT, 0).context("read the exit")?;
        let index = nix::net::if_::if_nametoindex(DEVICE)?;
        exit[offset_of!(Exit, ifindex)..][..4].copy_from_slice(&index.to_ne_bytes());
        exits.set(EXIT, exit, 0).context("write the exit")
    }

    /// Runs a program of XDP on live frames, which the kernel makes, and sends where the program
    /// says, as if they had come in at a device: the wall's time for all of them.
    pub(super) fn live(
        &self,
        name: &str,
        device: &str,
        frame: &[u8],
        frames: u32,
    ) -> Result<Duration> {
        /// As many as a driver hands over at a time.
        const BATCH: u32 = 64;
        let context = live_context(frame.len(), nix::net::if_::if_nametoindex(device)?);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let program =
            self.ebpf.program(name).with_context(|| format!("{name}: no such program"))?;
        let program = <&Xdp>::try_from(program)?;
        let started = Instant::now();
        program.test_run(options).with_context(|| format!("run {name} on live frames"))?;
        Ok(started.elapsed())
    }

    /// Has programs meet all frames that come in at devices, in their drivers, while `code` runs.
    pub(super) fn attached<T>(
        &mut self,
        places: &[(&str, &str)],
        code: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let mut links = Vec::new();
        for (name, device) in places {
            let link = self.xdp_mut(name)?.attach(device, XdpMode::Driver);
            links.push((name, link.with_context(|| format!("attach {name} to {device}"))?));
        }
        let done = code(self);
        for (name, link) in links {
            self.xdp_mut(name)?.detach(link).with_context(|| format!("detach {name}"))?;
        }
        done
    }

    fn xdp_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program.with_context(|| format!("{name}: no such program"))?.try_into()?)
    }

    /// Puts the device into the map of those that XDP can send out of.
    pub(super) fn offer_device(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut("send_devices").context("send_devices: no such map")?;
        let index = nix::net::if_::if_nametoindex(DEVICE)?;
        DevMap::try_from(map)?.set(0, index, None, 0).context("write send_devices")
    }

    fn expect(&self, name: &str, hook: Hook, frame: &[u8], repeat: u32, want: u32) -> Result<()> {
        let (_, verdict) = self.test_run(name, hook, frame, repeat)?;
        ensure!(verdict == want, "{name}: verdict {verdict}, not {want}");
        Ok(())
    }

    fn test_run(&self, name: &str, hook: Hook, frame: &[u8], repeat: u32) -> Result<(u64, u32)> {
        let mut out = vec![0u8; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::new()
        };
        let program =
            self.ebpf.program(name).with_context(|| format!("{name}: no such program"))?;
        let result = match hook {
            Hook::Xdp => <&Xdp>::try_from(program).and_then(|program| program.test_run(options)),
            Hook::Tc => {
                <&SchedClassifier>::try_from(program).and_then(|program| program.test_run(options))
            }
        };
        let result =
            result.map_err(|error: ProgramError| error).with_context(|| format!("run {name}"))?;
        Ok((u64::try_from(result.duration.as_nanos())?, result.return_value))
    }
}

/// `struct xdp_md` of a frame that comes in at a device: data, data_end, data_meta, device, queue,
/// and the device that it leaves from.
fn live_context(length: usize, device: u32) -> Vec<u8> {
    [0, length as u32, 0, device, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// The device that frames come in at.
pub(super) const DEVICE: &str = "bench0";
/// The other end of its link.
pub(super) const PEER: &str = "bench1";

/// A device that no frame comes to.
pub(super) const SPARE: &str = "bench2";

/// `XDP_TX`.
pub(super) const XDP_TX: u32 = 3;

/// Puts this thread on one processor and into a network namespace of its own, with the route to
/// the backends that new flows need.
pub(super) fn isolate(cpu: usize) -> Result<()> {
    processor::pin(cpu).context("--cpu")?;
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (root is needed)")?;
    for line in [
        "link set lo up",
        "link add bench0 type veth peer name bench1",
        "link set bench0 up",
        "link set bench1 up",
        "link add bench2 type veth peer name bench3",
        "addr add 192.0.2.1/24 dev bench0",
        "addr add 2001:db8::1/64 dev bench0 nodad",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev bench0",
        "neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev bench0",
        "route add 198.51.100.0/24 via 192.0.2.2",
        "-6 route add 2001:db8:2::/64 via 2001:db8::2",
    ] {
        command::run(Command::new("ip").args(line.split_whitespace()))?;
    }
    for key in ["ipv4.conf.all.forwarding", "ipv6.conf.all.forwarding"] {
        let path = format!("/proc/sys/net/{}", key.replace('.', "/"));
        std::fs::write(&path, "1").with_context(|| format!("write {path}"))?;
    }
    Ok(())
}
