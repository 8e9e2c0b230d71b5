//! Who has which address, and the per-namespace settings that make the lab's network behave.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context;

use super::{ip, namespace::Namespace};

/// In Cloudflare's 173.245.48.0/20.
pub const VISITOR: Ipv4Addr = Ipv4Addr::new(173, 245, 48, 10);
/// In Cloudflare's 2400:cb00::/32.
pub const VISITOR_V6: Ipv6Addr = Ipv6Addr::new(0x2400, 0xcb00, 0, 0, 0, 0, 0, 0x10);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 9);
pub const EDGE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const EDGE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xed9e, 0, 0, 0, 0, 1);
/// From where the edge speaks to the servers.
pub const EDGE_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);

/// Where the site is served over HTTPS.
pub const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(EDGE), 443);
pub const HTTPS_V6: SocketAddr = SocketAddr::new(IpAddr::V6(EDGE_V6), 443);
/// Where a configuration that has it serves plain HTTP.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(EDGE), 80);

/// The servers' port for HTTP, and for HTTPS.
pub const SERVER_PORT: u16 = 8080;
pub const SERVER_TLS_PORT: u16 = 8443;

/// Gives the namespace of this role its settings, addresses and routes.
pub fn give(namespace: &Namespace, role: &str) -> anyhow::Result<()> {
    namespace.run(|| settings(role))??;
    ip(&["-n", namespace.name(), "-batch", "-"], script(role))
        .with_context(|| format!("can't set up the namespace of the {role}"))
}

fn script(role: &str) -> &'static str {
    match role {
        "internet" => {
            "link set lo up
             link set visitor up
             link set stranger up
             link set edge up
             address add 173.245.48.1/24 dev visitor
             address add 203.0.113.1/24 dev stranger
             address add 198.51.100.254/24 dev edge
             address add 2400:cb00::1/64 dev visitor nodad
             address add 2001:db8:bad::1/64 dev stranger nodad
             address add 2001:db8:ed9e::fe/64 dev edge nodad"
        }
        "visitor" => {
            "link set lo up
             link set net up
             address add 173.245.48.10/24 dev net
             address add 2400:cb00::10/64 dev net nodad
             route add default via 173.245.48.1
             route add default via 2400:cb00::1"
        }
        "stranger" => {
            "link set lo up
             link set net up
             address add 203.0.113.9/24 dev net
             address add 2001:db8:bad::9/64 dev net nodad
             route add default via 203.0.113.1
             route add default via 2001:db8:bad::1"
        }
        "edge" => {
            "link set lo up
             link set public up
             link set one up
             link set two up
             address add 198.51.100.1/24 dev public
             address add 2001:db8:ed9e::1/64 dev public nodad
             address add 10.0.0.1/32 dev lo
             route add 10.0.0.11 dev one src 10.0.0.1
             route add 10.0.0.12 dev two src 10.0.0.1
             route add default via 198.51.100.254
             route add default via 2001:db8:ed9e::fe"
        }
        // Of a pair: beside `edge`, on the same wire.
        "second" => {
            "link set lo up
             link set public up
             link set one up
             link set two up
             address add 198.51.100.2/24 dev public
             address add 2001:db8:ed9e::2/64 dev public nodad
             address add 10.0.0.2/32 dev lo
             route add 10.0.0.11 dev one src 10.0.0.2
             route add 10.0.0.12 dev two src 10.0.0.2
             route add default via 198.51.100.254
             route add default via 2001:db8:ed9e::fe"
        }
        "one" => {
            "link set lo up
             link set edge up
             address add 10.0.0.11/32 dev edge
             route add 10.0.0.1 dev edge"
        }
        "two" => {
            "link set lo up
             link set edge up
             address add 10.0.0.12/32 dev edge
             route add 10.0.0.1 dev edge"
        }
        other => unreachable!("no namespace has the role {other}"),
    }
}

/// Runs inside of the namespace: `/proc/sys/net` is that of the thread that opens it.
fn settings(role: &str) -> anyhow::Result<()> {
    // Else IPv6 addresses are "tentative" for a second or two. For each interface: the greatest value holds.
    for interface in interfaces("ipv6/conf")? {
        set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    }
    for interface in interfaces("ipv4/conf")? {
        set(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    if role == "internet" {
        set("ipv4/ip_forward", "1")?;
        set("ipv6/conf/all/forwarding", "1")?;
    }
    if matches!(role, "edge" | "second") {
        // A daemon without privileges may have port 443 too.
        set("ipv4/ip_unprivileged_port_start", "0")?;
    }
    Ok(())
}

/// With `all` and `default` among them.
fn interfaces(folder: &str) -> anyhow::Result<Vec<String>> {
    let folder = Path::new("/proc/sys/net").join(folder);
    std::fs::read_dir(&folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn set(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    std::fs::write(&path, value).with_context(|| format!("can't write {}", path.display()))
}
