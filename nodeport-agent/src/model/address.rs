//! Which addresses can be an endpoint's, and which ports are ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// Reads an endpoint's address.
///
/// # Errors
/// Says why no packet may be sent to such an address, or what is wrong with the text.
pub fn endpoint(text: &str, family: Family) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address; give the endpoint's {family} one"))?;
    if Family::of(address) != family {
        return Err(format!("{address} is not an {family} address, as addressType says"));
    }
    match objection(address) {
        Some(what) => Err(format!("{address} is {what}; give the address of the endpoint itself")),
        None => Ok(address),
    }
}

/// Reads an address that clients use.
///
/// # Errors
/// Says why no packet can be for such an address, or what is wrong with the text.
pub fn frontend(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address"))?;
    match objection(address) {
        Some(what) => Err(format!("{address} is {what}, at which no client reaches a node")),
        None => Ok(address),
    }
}

/// Why nothing can be balanced to this address. The API server refuses the same ones.
fn objection(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => objection4(address),
        IpAddr::V6(address) => objection6(address),
    }
}

fn objection4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address {
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_link_local() => "a link-local address",
        _ if address.is_broadcast() => "the broadcast address",
        // All of 0.0.0.0/8 is "this network" (RFC 1122).
        _ if address.octets()[0] == 0 => "an unspecified address",
        _ => return None,
    })
}

fn objection6(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address {
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_unicast_link_local() => "a link-local address",
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
        _ => return None,
    })
}

/// Reads a port number.
///
/// # Errors
/// Says what a port is, if this is none.
pub fn port(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{number} is not a port; use a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_endpoint_can_have_is_refused() {
        for (text, family, part) in [
            ("127.0.0.1", Family::V4, "loopback"),
            ("224.0.0.1", Family::V4, "multicast"),
            ("169.254.1.1", Family::V4, "link-local"),
            ("255.255.255.255", Family::V4, "broadcast"),
            ("0.0.0.0", Family::V4, "unspecified"),
            ("0.1.2.3", Family::V4, "unspecified"),
            ("::1", Family::V6, "loopback"),
            ("ff02::1", Family::V6, "multicast"),
            ("fe80::1", Family::V6, "link-local"),
            ("::", Family::V6, "unspecified"),
            ("::ffff:10.0.0.1", Family::V6, "IPv4-mapped"),
            ("10.0.0.1", Family::V6, "not an IPv6 address"),
            ("fd00::1", Family::V4, "not an IPv4 address"),
            ("pod-1.example", Family::V4, "not an IP address"),
            ("010.0.0.1", Family::V4, "not an IP address"),
        ] {
            let error = endpoint(text, family).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_an_endpoint_can_have_is_taken() {
        for (text, family) in
            [("10.0.0.1", Family::V4), ("192.168.0.255", Family::V4), ("fd00::1", Family::V6)]
        {
            assert_eq!(endpoint(text, family).unwrap().to_string(), text);
        }
    }

    #[test]
    fn ports_have_sixteen_bits_and_are_not_zero() {
        assert_eq!(port(65535), Ok(65535));
        for number in [0, -1, 65536, 70000] {
            assert!(port(number).unwrap_err().contains(&number.to_string()));
        }
    }
}
