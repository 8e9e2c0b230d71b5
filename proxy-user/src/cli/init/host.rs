//! What a first configuration can find out about the host.

use std::{fs, path::PathBuf};

use crate::privileges;

#[derive(Debug, Default)]
pub(super) struct Found {
    /// All interfaces but loopback.
    pub all: Vec<String>,
    /// Those with a default route: visitors come in there.
    pub facing: Vec<String>,
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
    let has_user = privileges::host_has_user("weir");
    Found { all, facing, has_user }
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
    fn default_routes_are_found_in_both_tables() {
        let v4 = "Iface\tDestination\tGateway\neth0\t00000000\t0100000A\nwg0\t0000000A\t00000000\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe80 00000400 1 0 3 ens5\n{zero} 00 {zero} 00 0 ffffffff 1 0 200200 lo\n"
        );
        assert_eq!(default_routes(v4, &v6), ["eth0", "ens5"]);
    }
}
