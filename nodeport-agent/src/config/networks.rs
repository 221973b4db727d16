//! Lists of networks.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks that an address may have to be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    /// No address is in them.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every address is in them.
    #[must_use]
    pub fn all() -> Self {
        Self([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into())
    }

    /// Reads `none`, `all`, or networks and addresses separated by commas.
    pub(super) fn option(option: &str, value: &str) -> anyhow::Result<Self> {
        match value {
            "none" => return Ok(Self::none()),
            "all" => return Ok(Self::all()),
            _ => {}
        }
        Self::list(value).with_context(|| {
            format!(
                "{option} {value:?}: write none, all, or networks such as \
                 192.0.2.0/24,2001:db8::/64"
            )
        })
    }

    /// Reads networks and addresses separated by commas.
    pub(super) fn list(value: &str) -> anyhow::Result<Self> {
        let read = |text: &str| network(text).with_context(|| format!("{text:?} is no network"));
        let networks = value.split(',').map(str::trim).map(read).collect::<anyhow::Result<_>>()?;
        Ok(Self(networks))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }

    /// The first one that the address is in.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&IpNet> {
        self.iter().find(|network| network.contains(&address))
    }

    /// Whether the address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// Reads a network, or an address, which is a network of one. Bits behind the prefix must be zero: else
/// it is not clear what is meant.
fn network(text: &str) -> anyhow::Result<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse()?;
    ensure!(network == network.trunc(), "{network} has bits behind its prefix");
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> anyhow::Result<Networks> {
        Networks::option("--external-ips", value)
    }

    #[test]
    fn networks_and_addresses_are_read() {
        for (value, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.9", "192.0.3.1"),
            ("192.0.2.1, 2001:db8::/64", "2001:db8::5", "192.0.2.2"),
            ("192.0.2.1,2001:db8::/64", "192.0.2.1", "2001:db9::5"),
        ] {
            let networks = read(value).unwrap();
            assert!(networks.contain(inside.parse().unwrap()), "{value}: {inside}");
            assert!(!networks.contain(outside.parse().unwrap()), "{value}: {outside}");
        }
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(read("all").unwrap().contain(address.parse().unwrap()));
            assert!(!read("none").unwrap().contain(address.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for value in ["", "192.0.2.0/33", "192.0.2.1/24", "everything", "10.0.0.0/8,,"] {
            let error = format!("{:#}", read(value).unwrap_err());
            assert!(error.contains("--external-ips") && error.contains("no network"), "{error}");
        }
    }
}
