//! The prefixes that the kernel holds for an entrypoint, read back.
//!
//! Maps inside of maps are opened by their numbers, which the kernel grants to CAP_SYS_ADMIN only: to others, and where
//! an allowlist stands in the kernel in a form that has no prefixes, there is nothing to show.

use std::{net::IpAddr, os::fd::AsFd};

use aya::maps::{LpmTrie, Map, MapData, MapError, MapType};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proxy_common::{admission::ListId, names};

use super::{KernelFault, pins::Pins, sys::table};

/// A prefix, and the number of the list that it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub prefix: IpNet,
    pub list: ListId,
}

/// The prefixes in a slot, of the family of `source`, in order. `None`: they can't be shown.
pub(super) fn read(pins: &Pins, admission: u32, source: IpAddr) -> Result<Option<Vec<Member>>, KernelFault> {
    let name = if source.is_ipv4() { names::GATE_ALLOW_V4 } else { names::GATE_ALLOW_V6 };
    let failed = |error: &MapError| KernelFault::aya(format!("read {name}"), error);
    let outer = MapData::from_pin(pins.map(name)).map_err(|error| failed(&error))?;
    let inner = table::slot(outer.fd().as_fd(), admission)
        .map_err(|error| KernelFault::system(format!("read {name}"), error))?;
    let Some(Ok(inner)) = inner.map(MapData::from_id) else { return Ok(None) };
    let kind = inner.info().and_then(|info| info.map_type());
    if !matches!(kind, Ok(MapType::LpmTrie)) {
        return Ok(None);
    }
    let inner = Map::from_map_data(inner).map_err(|error| failed(&error))?;
    let members = if source.is_ipv4() { trie_v4(inner) } else { trie_v6(inner) };
    let mut members = members.map_err(|error| failed(&error))?;
    members.sort_unstable_by_key(|member| member.prefix);
    Ok(Some(members))
}

/// The longest prefix that has the address, which is the one that the kernel goes by.
pub(super) fn deciding(members: &[Member], address: IpAddr) -> Option<&Member> {
    let having = members.iter().filter(|member| member.prefix.contains(&address));
    having.max_by_key(|member| member.prefix.prefix_len())
}

/// The prefixes right below and right above an address that none of them has.
pub(super) fn nearest(members: &[Member], address: IpAddr) -> Vec<&Member> {
    let below = members.iter().filter(|member| member.prefix.broadcast() < address);
    let above = members.iter().filter(|member| member.prefix.network() > address);
    let below = below.max_by_key(|member| member.prefix.broadcast());
    let above = above.min_by_key(|member| member.prefix.network());
    below.into_iter().chain(above).collect()
}

fn trie_v4(map: Map) -> Result<Vec<Member>, MapError> {
    let trie: LpmTrie<MapData, [u8; 4], ListId> = map.try_into()?;
    collect(trie.iter().map(|entry| {
        let (key, list) = entry?;
        let prefix = Ipv4Net::new(key.data().into(), prefix_len(key.prefix_len())).ok();
        Ok(prefix.map(|prefix| Member { prefix: prefix.into(), list }))
    }))
}

fn trie_v6(map: Map) -> Result<Vec<Member>, MapError> {
    let trie: LpmTrie<MapData, [u8; 16], ListId> = map.try_into()?;
    collect(trie.iter().map(|entry| {
        let (key, list) = entry?;
        let prefix = Ipv6Net::new(key.data().into(), prefix_len(key.prefix_len())).ok();
        Ok(prefix.map(|prefix| Member { prefix: prefix.into(), list }))
    }))
}

fn collect(members: impl Iterator<Item = Result<Option<Member>, MapError>>) -> Result<Vec<Member>, MapError> {
    members.filter_map(Result::transpose).collect()
}

fn prefix_len(length: u32) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(prefixes: &[&str]) -> Vec<Member> {
        prefixes
            .iter()
            .zip(1..)
            .map(|(prefix, list)| Member { prefix: prefix.parse().unwrap(), list })
            .collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let members = members(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]);
        assert_eq!(deciding(&members, "10.1.3.4".parse().unwrap()), Some(&members[1]));
        assert_eq!(deciding(&members, "11.0.0.0".parse().unwrap()), None);
    }

    #[test]
    fn the_neighbours_of_a_stranger_are_the_nearest_on_both_sides() {
        let members = members(&["10.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]);
        let nearest = |address: &str| {
            let nearest = nearest(&members, address.parse().unwrap());
            nearest.iter().map(|member| member.prefix.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(nearest("192.0.3.0"), ["192.0.2.0/24", "198.51.100.0/24"]);
        assert_eq!(nearest("1.1.1.1"), ["10.0.0.0/8"]);
        assert_eq!(nearest("203.0.114.0"), ["203.0.113.0/24"]);
    }
}
