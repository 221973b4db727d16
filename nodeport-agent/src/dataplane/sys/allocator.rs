//! What the C library does with memory that was freed.

/// Blocks of this many bytes and more are mapped each by itself, and given back to the system as soon
/// as they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 * 1024;

/// Lets freed memory go back to the system. To be called before there are threads.
///
/// The kernel's types and the first lists of the API are large and short-lived: a hundred MiB. By
/// itself, glibc moves its threshold up with every large block that is freed (`mallopt(3)`, "dynamic
/// mmap threshold"), has the next ones on the heap, and there they stay under whatever lies above.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no other thread is there yet, and both only take a number. Refused, memory is merely
        // kept for longer.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    }
}

/// Gives back whole pages among small blocks that were freed. Takes some milliseconds.
pub(crate) fn give_back_pages() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes the allocator's own locks, and touches free memory alone.
        unsafe { libc::malloc_trim(0) };
    }
}
