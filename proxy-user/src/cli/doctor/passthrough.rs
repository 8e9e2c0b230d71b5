//! What passthrough by port needs of the host, so that the kernel carries it.

use std::net::IpAddr;

use super::Finding;
use crate::{
    config::model::{Config, KernelMode, Offload, Server},
    kernel::{forward, route},
    passthrough::by_port,
};

pub fn look(config: &Config) -> Vec<Finding> {
    if !by_port::is_wanted(config) {
        return Vec::new();
    }
    let mut findings = vec![gate(config)];
    if let Some(why) = forward::ports_taken(config.kernel.nat_ports) {
        let remedy = format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", config.kernel.nat_ports);
        findings.push(Finding::poor("ports for flows", why, remedy));
    } else {
        findings.push(Finding::well(
            "ports for flows",
            format!("{}, which the host takes for nothing else", config.kernel.nat_ports),
        ));
    }
    findings.extend(ways(config));
    findings
}

/// The kernel's part hangs at the gate's interfaces.
fn gate(config: &Config) -> Finding {
    let without = config.kernel.mode == KernelMode::Off || config.kernel.interfaces.is_empty();
    let remedy = "name the interfaces that clients and servers are reached by in `[kernel] interfaces`";
    match without {
        false => Finding::well("passthrough", "by port, in the kernel"),
        true => Finding::poor("passthrough", "relayed by the daemon: there is no gate", remedy),
    }
}

/// Servers that no route leads to.
fn ways(config: &Config) -> Vec<Finding> {
    let routes = config.carried.iter().filter(|route| route.sni.is_empty());
    let services = routes.filter_map(|route| config.services.get(route.service.0));
    let carried = services.filter(|service| service.offload != Offload::Off);
    let mut ips: Vec<IpAddr> = carried
        .flat_map(|service| &service.servers)
        .flat_map(Server::addresses)
        .map(|addr| addr.ip())
        .collect();
    ips.sort_unstable();
    ips.dedup();
    let lost = ips.into_iter().filter(|ip| matches!(route::interface_towards(ip.to_canonical()), Ok(None)));
    lost.map(|ip| {
        let remedy = format!("`ip route get {ip}` says what the host thinks of it");
        Finding::poor(
            "way to a server",
            format!("no route leads to {ip}, so the kernel can't carry there"),
            remedy,
        )
    })
    .collect()
}
