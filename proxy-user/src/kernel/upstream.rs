//! What the kernel tells of the daemon's connections to servers: see `proxy-ebpf/src/upstream.rs`.
//!
//! Unlike the gate, nothing of this is pinned. It is of use only to the process that reads it, so it ends with that
//! process, however that ends, and there is nothing to clean up.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use aya::{
    EbpfLoader,
    maps::{HashMap, MapData, RingBuf},
    programs::{SockOps, links::CgroupAttachMode, loaded_programs, sock_ops::SockOpsLink},
};
use proxy_common::{
    names,
    upstream::{MAX_WATCHED, RING_BYTES, Report, ServerKey, Told},
};
use tokio::io::unix::AsyncFd;

pub use proxy_common::upstream::Kind;

use super::{KernelFault, cgroup, object};
use crate::config::model::Cgroup;

/// What the kernel has seen of a connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub server: SocketAddr,
    pub kind: Kind,
}

/// The attached program and what it reads and writes. Dropped, it is detached.
pub struct ServerWatch {
    // In the order in which it ends: detached before its group goes.
    _link: SockOpsLink,
    reports: AsyncFd<RingBuf<MapData>>,
    servers: HashMap<MapData, ServerKey, Told>,
    named: BTreeSet<ServerKey>,
    group: cgroup::Group,
}

impl ServerWatch {
    /// Enters the control group and attaches the program there. `None`: `choice` is off. Needs a runtime around it.
    pub fn open(choice: &Cgroup) -> Result<Option<Self>, KernelFault> {
        if *choice == Cgroup::Off {
            return Ok(None);
        }
        super::privileges::check()
            .map_err(|_| KernelFault::NotPermitted { doing: "watch connections to servers".into() })?;
        let object = object::built_in().ok_or(KernelFault::NoObject)?;
        let mut loader = EbpfLoader::new();
        // What is made too much is gone again at the end of this function.
        object::make_small(&mut loader, &[names::UPSTREAM_SERVERS, names::UPSTREAM_REPORTS]);
        let mut ebpf = loader
            .load(object)
            .map_err(|error| KernelFault::aya("make the maps for watching servers", &error))?;
        let attach = |error: &(dyn std::error::Error + 'static)| {
            KernelFault::aya(format!("attach the program `{}`", names::UPSTREAM_WATCH), error)
        };
        let program: &mut SockOps = object::program(&mut ebpf, names::UPSTREAM_WATCH)?;
        program.load().map_err(|error| object::refused(names::UPSTREAM_WATCH, error))?;
        let Some(group) = cgroup::Group::enter(choice)? else { return Ok(None) };
        // By a link, which knows no modes: others' programs stay where they are.
        let link = program
            .attach(group.open()?, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|error| attach(&error))?;
        let mut take = |name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| KernelFault::Other {
                doing: format!("find the map `{name}`"),
                why: "it is not in the eBPF object; build again with `cargo xtask build`".into(),
            })
        };
        let (reports, servers) = (take(names::UPSTREAM_REPORTS)?, take(names::UPSTREAM_SERVERS)?);
        let reports = RingBuf::try_from(reports).map_err(|error| attach(&error))?;
        let servers = HashMap::try_from(servers).map_err(|error| attach(&error))?;
        // SAFETY: the ring owns its descriptor, names the same one whenever it is asked, and closes it only when it is
        // dropped, which the `AsyncFd` around it does after having forgotten the descriptor.
        let reports = unsafe { AsyncFd::register(reports) }.map_err(|error| {
            KernelFault::system(format!("watch {}", names::UPSTREAM_REPORTS), error.into())
        })?;
        Ok(Some(Self { _link: link, reports, servers, named: BTreeSet::new(), group }))
    }

    /// Where it is attached.
    #[must_use]
    pub fn group(&self) -> &Path {
        &self.group.path
    }

    /// From now on exactly these servers are watched, on connections that are yet to be made.
    pub fn follow(&mut self, servers: impl Iterator<Item = SocketAddr>) -> Result<(), KernelFault> {
        let wanted: BTreeSet<_> = servers.map(key).collect();
        let failed = |error: &(dyn std::error::Error + 'static)| {
            KernelFault::aya(format!("write to {}", names::UPSTREAM_SERVERS), error)
        };
        if wanted.len() > MAX_WATCHED {
            return Err(KernelFault::TooMany { what: "servers".into(), limit: MAX_WATCHED });
        }
        for gone in self.named.difference(&wanted) {
            self.servers.remove(gone).map_err(|error| failed(&error))?;
        }
        for new in wanted.difference(&self.named) {
            self.servers.insert(new, Told::default(), 0).map_err(|error| failed(&error))?;
        }
        self.named = wanted;
        Ok(())
    }

    /// Waits for reports, and gives all that there are.
    pub async fn reports(&mut self) -> std::io::Result<Vec<Seen>> {
        let mut ready = self.reports.readable_mut().await?;
        let mut seen = Vec::new();
        let ring = ready.get_inner_mut();
        while let Some(bytes) = ring.next() {
            seen.extend(read(&bytes));
        }
        ready.clear_ready();
        Ok(seen)
    }
}

/// A program that watches servers for some daemon that runs.
pub fn attached() -> Vec<u32> {
    let ours = |program: &aya::programs::ProgramInfo| program.name_as_str() == Some(names::UPSTREAM_WATCH);
    loaded_programs().filter_map(Result::ok).filter(ours).map(|program| program.id()).collect()
}

/// Removes what a daemon that was killed can leave behind: its empty control group.
pub fn remove_left_behind() -> Option<PathBuf> {
    cgroup::remove_left_behind()
}

fn read(bytes: &[u8]) -> Option<Seen> {
    let bytes: &[u8; size_of::<Report>()] = bytes.try_into().ok()?;
    // SAFETY: as many bytes as a report has, which is made of integers and bytes only.
    let report: Report = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
    Some(Seen { server: address(report.server), kind: Kind::of_number(report.kind)? })
}

fn key(server: SocketAddr) -> ServerKey {
    let address = match server.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    ServerKey::new(address.octets(), server.port())
}

fn address(key: ServerKey) -> SocketAddr {
    SocketAddr::new(IpAddr::from(key.address).to_canonical(), key.port)
}

// The ring is at least a page, and the kernel wants whole ones.
const _: () = assert!(RING_BYTES.is_multiple_of(4096) && RING_BYTES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_comes_back_as_it_went_in() {
        for server in ["10.0.0.11:8443", "[2001:db8::7]:1"] {
            let server: SocketAddr = server.parse().unwrap();
            assert_eq!(address(key(server)), server);
        }
    }
}
