//! What a first configuration can find out about the host.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf};

use nix::ifaddrs::getifaddrs;

use crate::privileges;

#[derive(Debug, Default)]
pub(super) struct Found {
    /// All interfaces but loopback.
    pub all: Vec<String>,
    /// Those that visitors seem to come in by: those with a default route, else those with an address of the internet's.
    pub facing: Vec<String>,
    /// Without those of the link alone.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Packages make the user `weir`.
    pub has_user: bool,
}

pub(super) fn found() -> Found {
    let mut all: Vec<String> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "lo" && fs::read_link(format!("/sys/class/net/{name}")).is_ok())
        .collect();
    all.sort();
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut facing: Vec<String> =
        default_routes(&v4, &v6).into_iter().filter(|name| all.contains(name)).collect();
    facing.sort();
    facing.dedup();
    let addresses = addresses();
    if facing.is_empty() {
        facing = all.iter().filter(|name| faces_the_internet(addresses.get(*name))).cloned().collect();
    }
    let has_user = privileges::host_has_user("weir");
    Found { all, facing, addresses, has_user }
}

fn addresses() -> BTreeMap<String, Vec<IpAddr>> {
    let mut known: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for one in getifaddrs().into_iter().flatten() {
        let Some(address) = one.address else { continue };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        known.entry(one.interface_name).or_default().push(ip);
    }
    known
}

fn faces_the_internet(addresses: Option<&Vec<IpAddr>>) -> bool {
    addresses.into_iter().flatten().any(|ip| match ip {
        IpAddr::V4(ip) => {
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 100)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    })
}

impl Found {
    /// `eth1 (10.0.0.5)`
    pub fn with_addresses(&self, name: &str) -> String {
        match self.addresses.get(name) {
            None => name.to_owned(),
            Some(ips) => {
                let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
                format!("{name} ({})", ips.join(", "))
            }
        }
    }

    /// Those that nobody seems to come in by.
    pub fn others(&self, chosen: &[String]) -> Vec<String> {
        let others =
            self.all.iter().filter(|name| !chosen.contains(name) && self.addresses.contains_key(*name));
        others.map(|name| self.with_addresses(name)).collect()
    }
}

/// The interfaces of default routes, in the kernel's two tables.
fn default_routes(v4: &str, v6: &str) -> Vec<String> {
    let of_v4 = v4.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| name.to_owned())
    });
    let of_v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., name] = fields.as_slice() else { return None };
        let everything = destination.chars().all(|digit| digit == '0') && *length == "00";
        (everything && *name != "lo").then(|| (*name).to_owned())
    });
    of_v4.chain(of_v6).collect()
}

/// Where certificates mostly are.
pub(super) fn certificates() -> Option<PathBuf> {
    ["/etc/weir/certs", "/etc/letsencrypt/live"].into_iter().map(PathBuf::from).find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_with_an_address_of_the_internet_faces_it() {
        for (ip, faces) in [
            ("203.0.113.5", true),
            ("2001:db8::5", true),
            ("10.0.0.5", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(faces_the_internet(Some(&vec![ip.parse().unwrap()])), faces, "{ip}");
        }
        assert!(!faces_the_internet(None));
    }

    #[test]
    fn default_routes_are_found_in_both_tables() {
        let v4 = "Iface\tDestination\tGateway\neth0\t00000000\t0100000A\nwg0\t0000000A\t00000000\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe80 00000400 1 0 3 ens5\n{zero} 00 {zero} 00 0 ffffffff 1 0 200200 lo\n"
        );
        assert_eq!(default_routes(v4, &v6), ["eth0", "ens5"]);
    }
}
