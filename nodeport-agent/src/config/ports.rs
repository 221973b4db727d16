//! Ranges of ports.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

/// A range of ports, first and last included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// If it is empty or holds port 0.
    pub fn new(first: u16, last: u16) -> anyhow::Result<Self> {
        ensure!(first != 0, "port 0 cannot be used; start at 1 or above");
        ensure!(first <= last, "{first} is above {last}; write the smaller port first");
        Ok(Self { first, last })
    }

    pub(super) fn option(option: &str, value: &str) -> anyhow::Result<Self> {
        value.parse().with_context(|| format!("{option} {value:?}"))
    }

    /// First port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// All its ports.
    #[must_use]
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether the port is in it.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.ports().contains(&port)
    }

    /// Whether some port is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = anyhow::Error;

    fn from_str(value: &str) -> anyhow::Result<Self> {
        let Some((first, last)) = value.split_once('-') else {
            bail!("write a range as FIRST-LAST, such as 30000-32767");
        };
        let port = |text: &str| {
            text.trim().parse::<u16>().with_context(|| {
                format!("{text:?} is not a port; write a range such as 30000-32767")
            })
        };
        Self::new(port(first)?, port(last)?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
