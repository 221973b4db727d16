//! Two calls of bpf(2) that aya keeps to itself.
#![allow(unsafe_code, reason = "bpf(2) takes addresses; nothing else in this crate needs unsafe")]

use std::ffi::{CStr, c_long};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::Function;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

/// `BPF_LOG_STATS`: nothing but the figures at the end.
const LOG_STATISTICS: u32 = 4;

/// What BPF_PROG_LOAD is called with.
pub(super) struct Attributes<'a> {
    pub kind: bpf_prog_type,
    pub attach_type: Option<bpf_attach_type>,
    pub flags: u32,
    pub license: &'a CStr,
    pub function: &'a Function,
    pub btf: Option<&'a OwnedFd>,
}

/// Loads a program, drops it, and returns the verifier's log.
pub(super) fn load(attributes: &Attributes<'_>) -> Result<String> {
    let Attributes { kind, attach_type, flags, license, function, btf } = attributes;
    let functions = function.func_info.func_info_bytes();
    let lines = function.line_info.line_info_bytes();
    let mut log = vec![0_u8; 64 * 1024];
    let mut attr = zeroed();
    // SAFETY: all fields are integers, and the whole union is initialised to zeros.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = *kind as u32;
    load.expected_attach_type = attach_type.map_or(0, |kind| kind as u32);
    load.prog_flags = *flags;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(function.instructions.len())?;
    load.license = license.as_ptr() as u64;
    load.log_level = LOG_STATISTICS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = u32::try_from(log.len())?;
    if let Some(btf) = btf {
        load.prog_btf_fd = btf.as_raw_fd() as u32;
        load.func_info = functions.as_ptr() as u64;
        load.func_info_cnt = u32::try_from(function.func_info.len())?;
        load.func_info_rec_size = u32::try_from(function.func_info_rec_size)?;
        load.line_info = lines.as_ptr() as u64;
        load.line_info_cnt = u32::try_from(function.line_info.len())?;
        load.line_info_rec_size = u32::try_from(function.line_info_rec_size)?;
    }
    let loaded = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned();
    loaded.map(|_| text.clone()).with_context(|| format!("the verifier says:\n{text}"))
}

/// The type information that a loaded program was loaded with.
pub(super) fn btf_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr).with_context(|| format!("open BTF {id}"))
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of structs of integers; zeros are what the kernel wants in unused fields.
    unsafe { mem::zeroed() }
}

/// Calls the kernel for a command that answers with a file descriptor.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let size = size_of::<bpf_attr>();
    // SAFETY: `attr` is valid for `size` bytes, and the addresses in it are those of buffers that
    // the callers keep alive until this returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as c_long, std::ptr::from_mut(attr), size) };
    let fd =
        i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
