//! Arrays of the kernel's that are only looked at.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use nodeport_common::abi::Plain;

/// The kernel rounds elements of an array up to this many bytes.
const ELEMENT_ALIGNMENT: usize = 8;
/// The unit in which elements are read.
const WORD: usize = size_of::<u32>();

/// An array that others write to while we read. Each word is one access, a whole element is not;
/// what is read later is not older than what was read before.
#[derive(Debug)]
pub(crate) struct ReadOnlyArray<T> {
    memory: MmapRaw,
    len: u32,
    _elements: PhantomData<T>,
}

impl<T: Plain> ReadOnlyArray<T> {
    const STRIDE: usize = size_of::<T>().next_multiple_of(ELEMENT_ALIGNMENT);
    const WORDS: usize = size_of::<T>() / WORD;
    const IS_WHOLE_WORDS: () =
        assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= ELEMENT_ALIGNMENT);

    /// Maps an array of `len` elements, which must have the flag `BPF_F_MMAPABLE`.
    pub(crate) fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        const { Self::IS_WHOLE_WORDS };
        let bytes = Self::STRIDE * len as usize;
        let memory = MmapOptions::new().len(bytes).map_raw_read_only(map.as_raw_fd())?;
        Ok(Self { memory, len, _elements: PhantomData })
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Reads an element; none if there is no such.
    pub(crate) fn read(&self, index: u32) -> Option<T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the element lies inside the mapping, which lives as long as `self` and begins
        // at a page; its words are accessed by atomic operations alone on our side.
        let words = unsafe {
            let start = self.memory.as_ptr().add(Self::STRIDE * index as usize);
            std::slice::from_raw_parts(start.cast::<AtomicU32>(), Self::WORDS)
        };
        let mut value = MaybeUninit::<T>::uninit();
        for (place, word) in words.iter().enumerate() {
            // Memory that cannot be written to must be read with no more than this; the fence
            // orders it.
            let word = word.load(Ordering::Relaxed);
            // SAFETY: `value` has room for as many words as `words` has.
            unsafe { value.as_mut_ptr().cast::<u32>().add(place).write_unaligned(word) };
        }
        fence(Ordering::Acquire);
        // SAFETY: all of its bytes were written, and every bit pattern is a value.
        Some(unsafe { value.assume_init() })
    }
}
