//! `--nodeport-addresses`.

use anyhow::{Context as _, ensure};

use super::Networks;

/// Addresses of the node on which nodePorts are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The first InternalIP of each family in the Node object, else the first ExternalIP.
    Primary,
    /// Those of all interfaces.
    All,
    /// Those of all interfaces that are in these networks.
    In(Networks),
}

impl NodePortAddresses {
    /// Reads `primary`, `all`, or networks and addresses separated by commas.
    pub(super) fn option(value: &str) -> anyhow::Result<Self> {
        let option = format!("--nodeport-addresses {value:?}");
        match value {
            "primary" => return Ok(Self::Primary),
            "all" => return Ok(Self::All),
            _ => {}
        }
        for word in ["primary", "all"] {
            ensure!(
                !value.split(',').any(|part| part.trim() == word),
                "{option}: {word} stands alone; write it without networks, or networks without it"
            );
        }
        let networks = Networks::list(value).with_context(|| {
            format!("{option}: write primary, all, or networks such as 192.0.2.0/24,2001:db8::/64")
        })?;
        Ok(Self::In(networks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_and_networks_are_read() {
        let read = |value| NodePortAddresses::option(value).unwrap();
        assert_eq!(read("primary"), NodePortAddresses::Primary);
        assert_eq!(read("all"), NodePortAddresses::All);
        let NodePortAddresses::In(networks) = read("192.0.2.0/24, 2001:db8::5") else { panic!() };
        let list: Vec<_> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(list, ["192.0.2.0/24", "2001:db8::5/128"]);
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_a_way_out() {
        for (value, parts) in [
            ("", &["write primary, all, or networks"][..]),
            ("none", &["\"none\" is no network", "write primary, all, or networks"]),
            ("eth0", &["\"eth0\" is no network"]),
            ("192.0.2.1/24", &["has bits behind its prefix"]),
            ("192.0.2.0/24,,", &["\"\" is no network"]),
            ("primary,192.0.2.0/24", &["primary stands alone"]),
            ("192.0.2.0/24,all", &["all stands alone"]),
        ] {
            let error = format!("{:#}", NodePortAddresses::option(value).unwrap_err());
            let option = format!("--nodeport-addresses {value:?}");
            assert!(error.contains(&option), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{value}: {error}");
        }
    }
}
