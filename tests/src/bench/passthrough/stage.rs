//! The wires, the servers and the proxies.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::{
    MANY_SERVER_PORT, SERVER_PORT, soak,
    work::{self, Work},
};
use crate::{
    bench::sni_relay::{NAME, hello},
    lab::{
        Lab, PUBLIC,
        addresses::{EDGE, ONE},
        ip,
        process::Process,
        wait,
        weir::{Weir, admin_socket},
    },
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Where the edge carries connections in the kernel, and where HAProxy does.
const KERNEL_PORT: u16 = 7000;
const HAPROXY_PORT: u16 = 7001;
/// Where it reads the name, and hands the connection to the kernel.
const NAMED_PORT: u16 = 7002;
/// Where many connections are carried to servers that do nothing else.
const MANY_PORT: u16 = 7003;
/// Further addresses of the server and of the client: one alone hasn't ports enough for many connections a second.
pub const SERVERS: u8 = 4;
pub const CLIENTS: u8 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The server's own address, by way of the edge.
    Forwarding,
    Kernel,
    HaProxy,
    /// By the name in its hello, and then in the kernel.
    Named,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Forwarding, Self::Kernel, Self::HaProxy, Self::Named];

    /// What is measured of it: a short connection by name costs what it costs in the relay.
    pub fn does(self, work: Work) -> bool {
        self != Self::Named || matches!(work, Work::Down | Work::Up)
    }
}

/// The namespace beside the edge is the client here: nothing else is on the way.
#[derive(Debug)]
pub struct Stage {
    haproxy: Process,
    pub weir: Weir,
    pub lab: Lab,
}

impl Stage {
    pub fn set_up() -> anyhow::Result<Self> {
        let lab = Lab::build()?;
        for (namespace, script) in [
            (
                &lab.internet,
                format!(
                    "route add 10.0.0.0/24 via {EDGE}\n{}",
                    (0..CLIENTS)
                        .map(|nth| format!("address add 198.51.100.{}/24 dev edge\n", 100 + nth))
                        .collect::<String>()
                ),
            ),
            (
                &lab.edge,
                (0..SERVERS)
                    .map(|nth| format!("route add 10.0.0.{} dev one src 10.0.0.1\n", 20 + nth))
                    .collect(),
            ),
            (
                &lab.one,
                format!(
                    "route add 198.51.100.0/24 via 10.0.0.1 dev edge onlink\n{}",
                    (0..SERVERS)
                        .map(|nth| format!("address add 10.0.0.{}/32 dev edge\n", 20 + nth))
                        .collect::<String>()
                ),
            ),
        ] {
            ip(&["-n", namespace.name(), "-batch", "-"], &script)?;
        }
        lab.edge.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        lab.internet.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
            std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
        })??;
        work::serve(&lab.one, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SERVER_PORT))?;
        soak::serve(&lab.one, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), MANY_SERVER_PORT))?;
        let haproxy = haproxy(&lab)?;
        let weir = Weir::start(&lab, &toml(&lab))?.quietly();
        let stage = Self { haproxy, weir, lab };
        wait::until_true("the kernel carries connections", PATIENCE, || {
            let status = stage.weir.status()?;
            let entrypoints =
                status["forwarding"]["entrypoints"].as_array().context("no entrypoints")?.clone();
            Ok(!entrypoints.is_empty() && entrypoints.iter().all(|one| one.get("why_not").is_none()))
        })
        .with_context(|| stage.weir.log_text())?;
        // Each way leads there.
        for way in Way::ALL {
            let work = if way.does(Work::Connections) { Work::Connections } else { Work::Down };
            wait::until_true("a way leads to the server", PATIENCE, || {
                Ok(stage.measure(way, work, true).is_ok())
            })
            .with_context(|| {
                let why = stage.measure(way, work, true).err().map(|why| format!("{why:#}"));
                format!(
                    "{way:?}: {why:?}; HAProxy says: {}; Weir says: {}",
                    stage.haproxy.log_text(),
                    stage.weir.log_text()
                )
            })?;
        }
        Ok(stage)
    }

    /// Where many connections go.
    pub fn many_at() -> SocketAddr {
        SocketAddr::new(IpAddr::V4(EDGE), MANY_PORT)
    }

    fn address(&self, way: Way) -> SocketAddr {
        match way {
            Way::Forwarding => SocketAddr::new(IpAddr::V4(ONE), SERVER_PORT),
            Way::Kernel => SocketAddr::new(IpAddr::V4(EDGE), KERNEL_PORT),
            Way::HaProxy => SocketAddr::new(IpAddr::V4(EDGE), HAPROXY_PORT),
            Way::Named => SocketAddr::new(IpAddr::V4(EDGE), NAMED_PORT),
        }
    }

    /// `short`: a tenth of it.
    pub fn measure(&self, way: Way, work: Work, short: bool) -> anyhow::Result<f64> {
        let proxy = (way == Way::HaProxy).then(|| self.haproxy.pid());
        let before = self.carried()?;
        let hello = if way == Way::Named { hello(NAME)? } else { Vec::new() };
        let cost = work.measure(&self.lab.internet, self.address(way), &hello, proxy, short)?;
        // The daemon relays as well: what is measured must have gone through the kernel, and nothing else may have.
        let after = self.carried()?;
        ensure!(
            [after[0] > before[0], after[1] > before[1]] == [way == Way::Kernel, way == Way::Named],
            "it didn't go the way that is measured: {}",
            self.weir.status()?["forwarding"]
        );
        Ok(cost)
    }

    /// Flows that have begun in the kernel, and connections that were handed to it.
    fn carried(&self) -> anyhow::Result<[u64; 2]> {
        let forwarding = &self.weir.status()?["forwarding"];
        let services = forwarding["services"].as_array().context("no services")?;
        let opened = services.iter().filter_map(|one| one["opened"].as_u64()).sum();
        Ok([opened, forwarding["handed_over"]["handed_over"].as_u64().unwrap_or(0)])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Both die with the lab anyway.
        let _ = self.haproxy.signal(Signal::SIGTERM);
    }
}

fn haproxy(lab: &Lab) -> anyhow::Result<Process> {
    let file = lab.folder().join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         \x20 option splice-request\n  option splice-response\n\
         frontend in\n  bind {EDGE}:{HAPROXY_PORT}\n  default_backend out\nbackend out\n  server one {ONE}:{SERVER_PORT}\n"
    );
    std::fs::write(&file, text)?;
    let mut command = lab.edge.command("haproxy")?;
    command.arg("-db").arg("-f").arg(&file);
    Process::start("haproxy", command, &lab.folder().join("haproxy.log"))
}

fn toml(lab: &Lab) -> String {
    let (folder, socket) = (lab.folder().display(), admin_socket(lab).display().to_string());
    let servers = |port: u16| {
        let servers: Vec<_> = (0..SERVERS).map(|nth| format!("\"10.0.0.{}:{port}\"", 20 + nth)).collect();
        servers.join(", ")
    };
    format!(
        r#"[kernel]
interfaces = ["{PUBLIC}"]
bpffs = "{folder}/bpffs"
cgroup = "off"
nat_ports = "10000-31999"
[admin]
bind = ["127.0.0.1:9190", "unix:{socket}"]
[log]
access = "off"
[state]
dir = "{folder}/state"
[allowlist.cloudflare]
refresh = "off"
[entrypoint.bytes]
bind = "{EDGE}:{KERNEL_PORT}"
protocol = "tcp"
[entrypoint.many]
bind = "{EDGE}:{MANY_PORT}"
protocol = "tcp"
[entrypoint.named]
bind = "{EDGE}:{NAMED_PORT}"
protocol = "tcp"
[service.pool]
servers = [{}]
[service.many]
servers = [{}]
[service.named]
servers = "{ONE}:{SERVER_PORT}"
offload = "splice-kernel"
[[route]]
entrypoint = "bytes"
passthrough = "pool"
[[route]]
entrypoint = "many"
passthrough = "many"
[[route]]
entrypoint = "named"
sni = "{NAME}"
passthrough = "named"
"#,
        servers(SERVER_PORT),
        servers(MANY_SERVER_PORT)
    )
}
