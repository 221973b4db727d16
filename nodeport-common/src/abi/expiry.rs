//! What the agent asks the program `nodeport_expire`: bytes that stand where a frame would, given
//! to it by BPF_PROG_TEST_RUN.

use super::plain;
use crate::core::expiry::Limits;

/// The request's head; as many keys as it says follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireRequest {
    /// 4 or 6.
    pub family: u32,
    /// Number of keys, at most [`EXPIRE_KEYS`].
    pub count: u32,
    /// How long flows may be silent.
    pub limits: Limits,
    /// Zero; the keys behind it are aligned to 8 bytes.
    pub pad: u32,
}
plain!(Limits = 4, 4, 4, 4, 4, 4, 4);
plain!(ExpireRequest = 4, 4, 28, 4);

/// Keys in one request at most. The program returns how many flows it has ended.
pub const EXPIRE_KEYS: usize = 4;
