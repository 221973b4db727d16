//! Arrays of the kernel's, mapped into our memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nodeport_common::abi::Plain;

/// The kernel rounds elements of an array up to this many bytes.
const ELEMENT_ALIGNMENT: usize = 8;
/// The unit in which elements are read and written.
const WORD: usize = size_of::<u32>();

/// An array that programs read while we write to it. Elements are read and written word by word,
/// from the first to the last; each word is one access, a whole element is not.
#[derive(Debug)]
pub(crate) struct SharedArray<T> {
    memory: MmapRaw,
    len: u32,
    _elements: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel in any case, and is only accessed by atomic
// operations; `T` is plain data.
unsafe impl<T: Plain> Send for SharedArray<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for SharedArray<T> {}

impl<T: Plain> SharedArray<T> {
    const STRIDE: usize = size_of::<T>().next_multiple_of(ELEMENT_ALIGNMENT);
    const WORDS: usize = size_of::<T>() / WORD;
    const IS_WHOLE_WORDS: () =
        assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= ELEMENT_ALIGNMENT);

    /// Maps an array of `len` elements, which must have the flag `BPF_F_MMAPABLE`.
    pub(crate) fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        const { Self::IS_WHOLE_WORDS };
        let bytes = Self::STRIDE * len as usize;
        let memory = MmapOptions::new().len(bytes).map_raw(map.as_raw_fd())?;
        Ok(Self { memory, len, _elements: PhantomData })
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Whether an element is all zero, as it is in a new array.
    pub(crate) fn is_zero(&self, index: u32) -> bool {
        let words = self.words(index).unwrap_or_default();
        words.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Reads an element; none if there is no such.
    pub(crate) fn read(&self, index: u32) -> Option<T> {
        let words = self.words(index)?;
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        for (place, word) in words.iter().enumerate() {
            let word = word.load(Ordering::Acquire);
            // SAFETY: `value` has room for as many words as `words` has.
            unsafe { value.as_mut_ptr().cast::<u32>().add(place).write_unaligned(word) };
        }
        // SAFETY: all of its bytes were written, and every bit pattern is a value.
        Some(unsafe { value.assume_init() })
    }

    /// Writes an element; false if there is no such.
    pub(crate) fn write(&self, index: u32, value: T) -> bool {
        let Some(words) = self.words(index) else { return false };
        for (place, word) in words.iter().enumerate() {
            // SAFETY: `value` has as many words as `words`, and no padding among them.
            let new = unsafe { (&raw const value).cast::<u32>().add(place).read_unaligned() };
            word.store(new, Ordering::Release);
        }
        true
    }

    /// Lets `change` change an element; false if there is no such.
    pub(crate) fn update(&self, index: u32, change: impl FnOnce(&mut T)) -> bool {
        let Some(mut value) = self.read(index) else { return false };
        change(&mut value);
        self.write(index, value)
    }

    fn words(&self, index: u32) -> Option<&[AtomicU32]> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the element lies inside the mapping, which lives as long as `self` and begins
        // at a page; its words are accessed by atomic operations alone on our side.
        unsafe {
            let start = self.memory.as_mut_ptr().add(Self::STRIDE * index as usize);
            Some(std::slice::from_raw_parts(start.cast::<AtomicU32>(), Self::WORDS))
        }
    }
}
