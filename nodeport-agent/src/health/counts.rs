//! How often was answered what.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// Answers of one path.
#[derive(Debug, Default)]
pub struct Counts {
    well: AtomicU64,
    unwell: AtomicU64,
}

impl Counts {
    pub(super) fn note(&self, status: StatusCode) {
        let count = if status.is_success() { &self.well } else { &self.unwell };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// By HTTP status: those that said "well", and those that did not.
    #[must_use]
    pub fn by_code(&self) -> [(&'static str, u64); 2] {
        [("200", &self.well), ("503", &self.unwell)]
            .map(|(code, count)| (code, count.load(Ordering::Relaxed)))
    }
}
