//! Source ranges, over the pinned tries.

use std::net::IpAddr;

use anyhow::{Context as _, anyhow};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};
use ipnet::IpNet;
use nodeport_common::abi::{Addr4, Addr6, Plain, SourceRange, maps};

use super::bpf::errno;
use super::maps::{is_full, open};
use super::pins::Pins;
use super::wire::Wire;

type Trie<A> = LpmTrie<MapData, Wire<SourceRange<A>>, u32>;

/// The tries of both families.
#[derive(Debug)]
pub(super) struct Ranges {
    v4: Trie<Addr4>,
    v6: Trie<Addr6>,
}

impl Ranges {
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self { v4: trie(pins, maps::RANGES4)?, v6: trie(pins, maps::RANGES6)? })
    }

    /// Lets clients of a network in.
    pub(super) fn add(&mut self, service: u32, range: &IpNet) -> anyhow::Result<()> {
        let added = match range {
            IpNet::V4(net) => {
                self.v4.insert(&key(service, net.network().octets(), net.prefix_len()), 1, 0)
            }
            IpNet::V6(net) => {
                self.v6.insert(&key(service, net.network().octets(), net.prefix_len()), 1, 0)
            }
        };
        added.map_err(|error| match is_full(&error) {
            true => anyhow!("map {} is full: no room for {range}; merge ranges", name(range)),
            false => anyhow!(error).context(format!("map {}, {range}", name(range))),
        })
    }

    /// Lets them in no more.
    pub(super) fn remove(&mut self, service: u32, range: &IpNet) -> anyhow::Result<()> {
        let removed = match range {
            IpNet::V4(net) => {
                self.v4.remove(&key(service, net.network().octets(), net.prefix_len()))
            }
            IpNet::V6(net) => {
                self.v6.remove(&key(service, net.network().octets(), net.prefix_len()))
            }
        };
        match removed {
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            other => other.with_context(|| format!("map {}, {range}", name(range))),
        }
    }

    /// All that are there.
    pub(super) fn read(&self) -> anyhow::Result<Vec<(u32, IpNet)>> {
        let mut all = entries(&self.v4).context(maps::RANGES4)?;
        all.extend(entries(&self.v6).context(maps::RANGES6)?);
        Ok(all)
    }
}

fn trie<A>(pins: &Pins, name: &str) -> anyhow::Result<Trie<A>>
where
    SourceRange<A>: Plain,
{
    let map = Map::from_map_data(open(pins, name)?).with_context(|| name.to_owned())?;
    LpmTrie::try_from(map).with_context(|| format!("the map {name} is not what was expected"))
}

fn key<A>(service: u32, address: A, prefix: u8) -> Key<Wire<SourceRange<A>>>
where
    SourceRange<A>: Plain,
{
    let bits = SourceRange::<A>::SERVICE_BITS + u32::from(prefix);
    Key::new(bits, Wire(SourceRange { service, address }))
}

/// What no agent has written is passed over.
fn entries<A: Copy + Into<IpAddr>>(trie: &Trie<A>) -> anyhow::Result<Vec<(u32, IpNet)>>
where
    SourceRange<A>: Plain,
{
    let mut found = Vec::new();
    for key in trie.keys() {
        let key = key?;
        let Wire(SourceRange { service, address }) = key.data();
        let bits = key.prefix_len().checked_sub(SourceRange::<A>::SERVICE_BITS);
        let prefix = bits.and_then(|bits| u8::try_from(bits).ok());
        let range = prefix.and_then(|prefix| IpNet::new(address.into(), prefix).ok());
        found.extend(range.map(|range| (service, range)));
    }
    Ok(found)
}

const fn name(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => maps::RANGES4,
        IpNet::V6(_) => maps::RANGES6,
    }
}
