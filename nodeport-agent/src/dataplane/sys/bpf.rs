//! bpf(2): links, pins and what the kernel knows about them.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};
use nodeport_common::abi::Plain;

/// `XDP_FLAGS_DRV_MODE`: the driver runs the program, or nobody does.
const XDP_DRIVER: u32 = 1 << 2;
/// `BPF_F_BEFORE` with no program named: before all others.
const FIRST: u32 = 1 << 3;

/// What a link hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// XDP, run by the driver.
    Xdp,
    /// TC where packets arrive, before other TCX programs.
    TcxIngress,
    /// TC where packets leave, before other TCX programs.
    TcxEgress,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Its kind; none if it is one that we never make.
    pub(crate) kind: Option<LinkKind>,
    /// The program in it.
    pub(crate) program: u32,
    /// Its interface; 0 if that is gone.
    pub(crate) ifindex: u32,
}

/// Calls bpf(2). `attributes` is a structure of the command's, and what its addresses point to
/// must live through the call and be as long as it says: that is for the callers in this folder.
pub(super) fn call<T: Plain>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer and the size describe `attributes`, which has no padding; what it points
    // to is as its callers, all in this folder, say beside the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

/// Calls bpf(2) for a command that returns a file descriptor.
pub(super) fn call_for_fd<T: Plain>(command: bpf_cmd, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as bpf(2) takes it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    let fd: RawFd = fd.as_raw_fd();
    fd as u32
}

/// An address as bpf(2) takes it.
pub(super) fn address<T>(pointer: *const T) -> u64 {
    pointer as usize as u64
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}
impl Plain for LinkCreate {}

/// Attaches a program to an interface.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    kind: LinkKind,
) -> io::Result<OwnedFd> {
    let (attach_type, flags) = match kind {
        LinkKind::Xdp => (bpf_attach_type::BPF_XDP, XDP_DRIVER),
        LinkKind::TcxIngress => (bpf_attach_type::BPF_TCX_INGRESS, FIRST),
        LinkKind::TcxEgress => (bpf_attach_type::BPF_TCX_EGRESS, FIRST),
    };
    let mut attributes = LinkCreate {
        program: number(program),
        ifindex,
        attach_type: attach_type as u32,
        flags,
        ..LinkCreate::default()
    };
    call_for_fd(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}
impl Plain for LinkUpdate {}

/// Puts another program into a link, with no packet unseen in between.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes =
        LinkUpdate { link: number(link), program: number(program), ..LinkUpdate::default() };
    call(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(|_| ())
}

/// Takes a link's program from its interface, whoever else holds the link.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    call(bpf_cmd::BPF_LINK_DETACH, &mut number(link)).map(|_| ())
}

/// The head of `struct bpf_link_info`, for links on interfaces.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 4],
}
impl Plain for RawLinkInfo {}

#[repr(C)]
#[derive(Clone, Copy)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    address: u64,
}
impl Plain for ObjectInfo {}

fn object_info<T: Plain>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attributes = ObjectInfo {
        fd: number(fd),
        length: size_of::<T>() as u32,
        // The kernel writes at most `length` bytes to `info`, of which every bit pattern is a value.
        address: address(std::ptr::from_mut(info).cast_const()),
    };
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes).map(|_| ())
}

/// Asks the kernel about a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLinkInfo::default();
    object_info(link, &mut raw)?;
    let is = |kind: bpf_link_type| raw.kind == kind as u32;
    let kind = if is(bpf_link_type::BPF_LINK_TYPE_XDP) {
        Some(LinkKind::Xdp)
    } else if !is(bpf_link_type::BPF_LINK_TYPE_TCX) {
        None
    } else if raw.attach_type == bpf_attach_type::BPF_TCX_INGRESS as u32 {
        Some(LinkKind::TcxIngress)
    } else {
        Some(LinkKind::TcxEgress)
    };
    Ok(LinkInfo { kind, program: raw.program, ifindex: raw.ifindex })
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    head: [u64; 5],
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}
impl Plain for RawProgramInfo {}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct GetById {
    id: u32,
    next: u32,
    flags: u32,
}
impl Plain for GetById {}

/// A program's name, by its id. The kernel tells it to CAP_SYS_ADMIN only.
pub(crate) fn program_info(id: u32) -> io::Result<String> {
    let mut attributes = GetById { id, ..GetById::default() };
    let program = call_for_fd(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes)?;
    let mut raw = RawProgramInfo::default();
    object_info(program.as_fd(), &mut raw)?;
    let name = raw.name.iter().copied().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}
impl Plain for Object {}

fn terminated(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn object(path: &CString, fd: u32) -> Object {
    let pointer: *const c_char = path.as_ptr();
    Object { path: address(pointer), fd, flags: 0 }
}

/// Makes a file that keeps a map, program or link alive.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    // The string lives until the end of the function.
    let path = terminated(path)?;
    call(bpf_cmd::BPF_OBJ_PIN, &mut object(&path, number(fd))).map(|_| ())
}

/// Opens what a file keeps alive.
pub(crate) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    // The string lives until the end of the function.
    let path = terminated(path)?;
    call_for_fd(bpf_cmd::BPF_OBJ_GET, &mut object(&path, 0))
}
