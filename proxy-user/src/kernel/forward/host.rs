//! What this host can carry: the ways to servers, the addresses that wildcards stand for, the ports that are free for it.

use std::{
    collections::{HashMap, hash_map},
    fs,
    net::{IpAddr, SocketAddr},
};

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{Desired, Entry, KernelFault, Reached, addresses};
use crate::{
    config::model::{KernelMode, NatPorts},
    kernel::sys::route::{self, Route},
    passthrough::by_port::{ByPort, Wanted, Way},
};

/// Larger than the kernel's table of services, servers or places, with room for what flows still hold.
const MOST_SERVERS: usize = proxy_common::forward::MAX_SERVERS / 2;

/// What was found when the host was last looked at.
#[derive(Debug)]
pub struct Host {
    /// By number: where clients come in.
    pub front: Vec<u32>,
    /// Why nothing at all can be carried.
    nothing: Option<String>,
    /// Why no port may be taken for connections to servers.
    pub no_ports: Option<String>,
    own: Vec<IpAddr>,
    ways: HashMap<IpAddr, Option<Route>>,
    /// Whether the host forwards packets by itself, of IPv4 and of IPv6: then the kernel asks its routes for each.
    pub forwards: [bool; 2],
    /// Whether the host itself takes packets only by the interface that leads back (`rp_filter` is 1 everywhere).
    pub strict: bool,
}

impl Host {
    pub fn look(desired: &Desired) -> Result<Self, KernelFault> {
        let front: Vec<u32> =
            desired.interfaces.iter().filter_map(|name| if_nametoindex(&**name).ok()).collect();
        let nothing = if desired.mode == KernelMode::Off {
            Some("`kernel.mode` is `off`".to_owned())
        } else if desired.interfaces.is_empty() {
            Some("no interface is named in `kernel.interfaces`".to_owned())
        } else if front.is_empty() {
            Some("none of `kernel.interfaces` is there".to_owned())
        } else {
            None
        };
        let mut ways = HashMap::new();
        if nothing.is_none() {
            let wanted = desired.ports.iter().filter_map(|port| match &port.way {
                Way::Kernel(wanted) => Some(wanted),
                Way::Relay(_) => None,
            });
            for target in wanted.flat_map(|wanted| &wanted.targets) {
                let ip = target.addr.ip().to_canonical();
                if let hash_map::Entry::Vacant(unknown) = ways.entry(ip) {
                    let way = route::to(ip)
                        .map_err(|error| KernelFault::system(format!("ask for the way to {ip}"), error))?;
                    unknown.insert(way);
                }
            }
        }
        let on = |name: &str| sysctl(name).trim() == "1";
        let reached = ways.values().flatten().map(|way: &Route| way.interface);
        let interfaces = front.iter().copied().chain(reached).filter_map(|index| if_indextoname(index).ok());
        let filter =
            |name: &str| sysctl(&format!("ipv4/conf/{name}/rp_filter")).trim().parse().unwrap_or(0_u8);
        let all = filter("all");
        // At a port of a bond, packets come by another interface than routes say.
        let ports = front.iter().any(|index| route::is_port(*index).unwrap_or(true));
        let mut filters = interfaces.map(|name| all.max(filter(&name.to_string_lossy())));
        let strict = !ports && filters.all(|filter| filter == 1);
        Ok(Self {
            strict,
            front,
            nothing,
            no_ports: ports_taken(desired.nat_ports),
            own: addresses::host_addresses()?,
            ways,
            forwards: [on("ipv4/ip_forward"), on("ipv6/conf/all/forwarding")],
        })
    }

    /// An entrypoint as the kernel can carry it, by address family; or why it can't.
    pub fn entries(&self, port: &ByPort) -> Vec<Result<Entry, String>> {
        let wanted = match &port.way {
            Way::Relay(why) => return vec![Err(why.to_string())],
            Way::Kernel(wanted) => wanted,
        };
        if let Some(why) = &self.nothing {
            return vec![Err(why.clone())];
        }
        if let (Some(why), false) = (&self.no_ports, wanted.keep_source) {
            return vec![Err(why.clone())];
        }
        let addresses: Vec<SocketAddr> = port.bind.iter().flat_map(|bind| self.meant(*bind)).collect();
        if addresses.is_empty() {
            return vec![Err("this host has none of its addresses".to_owned())];
        }
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
        let families = [(false, v4), (true, v6)].into_iter().filter(|(_, addresses)| !addresses.is_empty());
        families.map(|(v6, addresses)| self.entry(port, wanted, v6, addresses)).collect()
    }

    fn entry(
        &self,
        port: &ByPort,
        wanted: &Wanted,
        v6: bool,
        addresses: Vec<SocketAddr>,
    ) -> Result<Entry, String> {
        let mut servers = Vec::new();
        for target in &wanted.targets {
            let ip = target.addr.ip().to_canonical();
            // The kernel makes no IPv4 of IPv6.
            if ip.is_ipv6() != v6 {
                continue;
            }
            let addr = SocketAddr::new(ip, target.addr.port());
            let route = self.ways.get(&ip).copied().flatten();
            let Some(route) = route else { return Err(format!("no way leads to server {addr}")) };
            if route.local {
                return Err(format!("server {addr} is on this host"));
            }
            let source = match (route.source, wanted.keep_source) {
                (Some(source), _) => source,
                (None, true) => ip,
                (None, false) => return Err(format!("the host has no address towards server {addr}")),
            };
            let (share, dead) = (target.share, target.dead);
            servers.push(Reached { addr, source, interface: route.interface, share, dead });
        }
        if servers.is_empty() {
            return Err(format!(
                "none of its servers has an address of {}",
                if v6 { "IPv6" } else { "IPv4" }
            ));
        }
        if servers.len() > MOST_SERVERS {
            return Err(format!("its servers are more than the {MOST_SERVERS} that the kernel can hold"));
        }
        Ok(Entry {
            entrypoint: port.entrypoint.clone(),
            service: port.service.clone(),
            protocol: port.protocol,
            v6,
            addresses,
            keep_source: wanted.keep_source,
            sticky: wanted.sticky,
            idle: wanted.idle,
            lifetime: wanted.lifetime,
            servers,
        })
    }

    /// `0.0.0.0` stands for all IPv4 addresses of the host, `[::]` for all IPv6 ones; loopback's come by no interface.
    fn meant(&self, bind: SocketAddr) -> Vec<SocketAddr> {
        let ip = bind.ip().to_canonical();
        if !ip.is_unspecified() {
            return vec![SocketAddr::new(ip, bind.port())];
        }
        let own = self.own.iter().filter(|own| own.is_ipv4() == ip.is_ipv4() && !own.is_loopback());
        own.map(|own| SocketAddr::new(*own, bind.port())).collect()
    }
}

/// Likewise, as this host is.
pub fn ports_taken(ports: NatPorts) -> Option<String> {
    taken(ports, &sysctl("ipv4/ip_local_port_range"), &sysctl("ipv4/ip_local_reserved_ports"))
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default()
}

/// Why the host may take some of these ports for connections of its own; `None`: it doesn't.
fn taken(ports: NatPorts, range: &str, reserved: &str) -> Option<String> {
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let own = NatPorts { first: bounds.next()?, last: bounds.next()? };
    if !ports.overlaps(own) {
        return None;
    }
    let spared = reserved.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
    });
    let spared: Vec<_> = spared.collect();
    let contested = ports.first.max(own.first)..=ports.last.min(own.last);
    let is_spared = |port: u16| spared.iter().any(|(first, last)| (*first..=*last).contains(&port));
    if contested.clone().all(is_spared) {
        return None;
    }
    Some(format!(
        "`kernel.nat_ports` ({ports}) overlaps with what the host takes for connections of its own \
         (net.ipv4.ip_local_port_range is {own}): set `nat_ports` beside it, or `sysctl -w \
         net.ipv4.ip_local_reserved_ports={ports}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: NatPorts = NatPorts { first: 20_000, last: 29_999 };

    #[test]
    fn ports_of_the_hosts_own_are_not_taken_unless_it_spares_them() {
        for (range, reserved, free) in [
            ("32768\t60999\n", "\n", true),
            ("1024\t65535\n", "\n", false),
            ("1024\t65535\n", "20000-29999\n", true),
            ("1024\t65535\n", "8080,20000-24999,25000-30000\n", true),
            ("1024\t65535\n", "20000-29998\n", false),
            ("29999\t60999\n", "29999\n", true),
            ("", "", true),
        ] {
            assert_eq!(taken(PORTS, range, reserved).is_none(), free, "{range:?} {reserved:?}");
        }
        let why = taken(PORTS, "1024 65535", "").unwrap();
        assert!(why.ends_with("sysctl -w net.ipv4.ip_local_reserved_ports=20000-29999`"), "{why}");
    }
}
