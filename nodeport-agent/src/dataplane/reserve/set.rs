//! Sets of ports, as the kernel writes them: `80,1000-1999`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::config::PortRange;

/// A set of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct PortSet(BTreeSet<u16>);

impl PortSet {
    /// The port that the kernel would give away first.
    pub(super) fn first(&self) -> Option<u16> {
        self.0.first().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        Self(ranges.into_iter().flat_map(PortRange::ports).collect())
    }
}

impl FromStr for PortSet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts = text.trim().split(',').filter(|part| !part.is_empty());
        let mut ports = BTreeSet::new();
        for part in parts {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let port = |text: &str| text.parse().with_context(|| format!("{text:?} is no port"));
            let (first, last): (u16, u16) = (port(first)?, port(last)?);
            ensure!(first <= last, "{part:?} is no range of ports");
            ports.extend(first..=last);
        }
        Ok(Self(ports))
    }
}

impl TryFrom<String> for PortSet {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<PortSet> for String {
    fn from(ports: PortSet) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = ports.next() {
            let mut last = first;
            while let Some(next) = ports.next_if(|next| last.checked_add(1) == Some(*next)) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl BitAnd for &PortSet {
    type Output = PortSet;

    fn bitand(self, other: Self) -> PortSet {
        PortSet(&self.0 & &other.0)
    }
}

impl BitOr for &PortSet {
    type Output = PortSet;

    fn bitor(self, other: Self) -> PortSet {
        PortSet(&self.0 | &other.0)
    }
}

impl Sub for &PortSet {
    type Output = PortSet;

    fn sub(self, other: Self) -> PortSet {
        PortSet(&self.0 - &other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_the_kernels() {
        for (text, shown) in [
            ("", ""),
            ("\n", ""),
            ("80\n", "80"),
            ("80,81,82,90", "80-82,90"),
            ("8080,9148,10000-10001", "8080,9148,10000-10001"),
            ("65534-65535,0", "0,65534-65535"),
        ] {
            assert_eq!(text.parse::<PortSet>().unwrap().to_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["80;81", "65536", "9-8", "a", "1-", "-"] {
            assert!(text.parse::<PortSet>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ports in prop::collection::btree_set(any::<u16>(), 0..200)) {
            let set = PortSet(ports);
            prop_assert_eq!(set.to_string().parse::<PortSet>().unwrap(), set);
        }
    }
}
