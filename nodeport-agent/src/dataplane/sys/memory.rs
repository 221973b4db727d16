//! Arrays of the kernel's, mapped into our memory.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use nodeport_common::abi::Plain;

/// The kernel rounds elements of an array up to this many bytes.
const ELEMENT_ALIGNMENT: usize = 8;
/// The unit in which elements are read and written.
const WORD: usize = size_of::<u32>();

/// An array that programs read while we write to it. Elements are read and written word by word,
/// from the first to the last; each word is one access, a whole element is not.
#[derive(Debug)]
pub(crate) struct SharedArray<T>(Elements<T>);

impl<T: Plain> SharedArray<T> {
    /// Maps an array of `len` elements, which must have the flag `BPF_F_MMAPABLE`.
    pub(crate) fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Elements::map(map, len, MmapOptions::map_raw).map(Self)
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> u32 {
        self.0.len
    }

    /// Whether an element is all zero, as it is in a new array.
    pub(crate) fn is_zero(&self, index: u32) -> bool {
        let words = self.0.words(index).unwrap_or_default();
        words.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Reads an element; none if there is no such.
    pub(crate) fn read(&self, index: u32) -> Option<T> {
        self.0.read(index)
    }

    /// Writes an element; false if there is no such.
    pub(crate) fn write(&self, index: u32, value: T) -> bool {
        let Some(words) = self.0.words(index) else { return false };
        for (place, word) in words.iter().enumerate() {
            // SAFETY: `value` has as many words as `words`, and no padding among them.
            let new = unsafe { (&raw const value).cast::<u32>().add(place).read_unaligned() };
            word.store(new, Ordering::Release);
        }
        true
    }

    /// Writes one word of an element, the one at `place`; false if there is no such.
    pub(crate) fn write_word(&self, index: u32, place: usize, value: u32) -> bool {
        let word = self.0.words(index).and_then(|words| words.get(place));
        if let Some(word) = word {
            word.store(value, Ordering::Release);
        }
        word.is_some()
    }

    /// Lets `change` change an element; false if there is no such.
    pub(crate) fn update(&self, index: u32, change: impl FnOnce(&mut T)) -> bool {
        let Some(mut value) = self.read(index) else { return false };
        change(&mut value);
        self.write(index, value)
    }
}

/// An array that others write to while we read: as [`SharedArray`], in memory that cannot be
/// written to. What is read later is not older than what was read before.
#[derive(Debug)]
pub(crate) struct ReadOnlyArray<T>(Elements<T>);

impl<T: Plain> ReadOnlyArray<T> {
    /// Maps an array of `len` elements, which must have the flag `BPF_F_MMAPABLE`.
    pub(crate) fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Elements::map(map, len, MmapOptions::map_raw_read_only).map(Self)
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> u32 {
        self.0.len
    }

    /// Reads an element; none if there is no such.
    pub(crate) fn read(&self, index: u32) -> Option<T> {
        self.0.read(index)
    }
}

/// What both are made of. Elements are values to copy out, none of which lives in here.
#[derive(Debug)]
struct Elements<T> {
    memory: MmapRaw,
    len: u32,
    _elements: PhantomData<fn() -> T>,
}

impl<T: Plain> Elements<T> {
    const STRIDE: usize = size_of::<T>().next_multiple_of(ELEMENT_ALIGNMENT);
    const WORDS: usize = size_of::<T>() / WORD;
    const IS_WHOLE_WORDS: () =
        assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= ELEMENT_ALIGNMENT);

    fn map(
        map: BorrowedFd<'_>,
        len: u32,
        how: fn(&MmapOptions, RawFd) -> io::Result<MmapRaw>,
    ) -> io::Result<Self> {
        const { Self::IS_WHOLE_WORDS };
        let bytes = Self::STRIDE * len as usize;
        let memory = how(MmapOptions::new().len(bytes), map.as_raw_fd())?;
        Ok(Self { memory, len, _elements: PhantomData })
    }

    /// The words of an element, which may be written to only where the memory may.
    fn words(&self, index: u32) -> Option<&[AtomicU32]> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the element lies inside the mapping, which lives as long as `self` and begins
        // at a page; its words are accessed by atomic operations alone on our side.
        unsafe {
            let start = self.memory.as_ptr().add(Self::STRIDE * index as usize);
            Some(std::slice::from_raw_parts(start.cast::<AtomicU32>(), Self::WORDS))
        }
    }

    fn read(&self, index: u32) -> Option<T> {
        let words = self.words(index)?;
        let mut value = MaybeUninit::<T>::uninit();
        for (place, word) in words.iter().enumerate() {
            // Memory that cannot be written to must be read with no more than this; the fence
            // orders it.
            let word = word.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            // SAFETY: `value` has room for as many words as `words` has.
            unsafe { value.as_mut_ptr().cast::<u32>().add(place).write_unaligned(word) };
        }
        // SAFETY: all of its bytes were written, and every bit pattern is a value.
        Some(unsafe { value.assume_init() })
    }
}
