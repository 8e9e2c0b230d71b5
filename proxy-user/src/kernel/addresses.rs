//! Which addresses the host has, and when that changes.
//!
//! The gate guards addresses, not wildcards: what is forwarded through the host to somebody else's port 443 is
//! none of its business. So a wildcard is expanded, and expanded again when addresses come or go.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use nix::{
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Guarded, KernelFault, NamedList, Protocol};
use crate::config::model::{SourceLimit, SynCookies};

/// An entrypoint with its wildcards expanded.
#[derive(Debug, Clone)]
pub(super) struct GuardedAddresses {
    pub entrypoint: Arc<str>,
    /// Bound by name.
    pub named: Vec<SocketAddr>,
    /// Meant by a wildcard. A socket that is bound to the address itself comes first, so its entrypoint does too.
    pub meant: Vec<SocketAddr>,
    pub protocols: Vec<Protocol>,
    pub lists: Vec<NamedList>,
    pub shadow: bool,
    pub limit: Option<SourceLimit>,
    pub syn_cookies: SynCookies,
}

pub(super) fn expand(guarded: &[Guarded]) -> Result<Vec<GuardedAddresses>, KernelFault> {
    let needs_host = guarded.iter().flat_map(|entry| &entry.bind).any(|bind| bind.ip().is_unspecified());
    let host = if needs_host { host_addresses()? } else { Vec::new() };
    let entries = guarded.iter().map(|entry| {
        let (wildcards, named): (Vec<SocketAddr>, Vec<SocketAddr>) =
            entry.bind.iter().partition(|bind| bind.ip().is_unspecified());
        GuardedAddresses {
            entrypoint: Arc::clone(&entry.entrypoint),
            named: named.iter().map(|bind| SocketAddr::new(bind.ip().to_canonical(), bind.port())).collect(),
            meant: wildcards.iter().flat_map(|bind| meant_by(*bind, &host)).collect(),
            protocols: entry.protocols.clone(),
            lists: entry.lists.clone(),
            shadow: entry.shadow,
            limit: entry.limit,
            syn_cookies: entry.syn_cookies,
        }
    });
    Ok(entries.collect())
}

/// `0.0.0.0` stands for IPv4 alone and `[::]` for IPv6 alone: Weir's sockets are bound so.
fn meant_by(wildcard: SocketAddr, host: &[IpAddr]) -> Vec<SocketAddr> {
    let same_family = host.iter().filter(|address| address.is_ipv4() == wildcard.is_ipv4());
    same_family.map(|address| SocketAddr::new(*address, wildcard.port())).collect()
}

/// The addresses of this network namespace.
pub(super) fn host_addresses() -> Result<Vec<IpAddr>, KernelFault> {
    let found =
        getifaddrs().map_err(|error| KernelFault::system("list the host's addresses", error.into()))?;
    let mut addresses: Vec<IpAddr> = found
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// What has changed in this network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Addresses came or went.
    pub addresses: bool,
    /// Interfaces came, went, or are not what they were.
    pub links: bool,
}

/// Tells when addresses or interfaces of this network namespace come, go or change.
pub struct AddressChanges {
    socket: AsyncFd<OwnedFd>,
}

impl AddressChanges {
    /// Needs a runtime around it. What changes from now on is told, also if nobody waits yet.
    pub fn watch() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_LINK;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.unsigned_abs()))?;
        // SAFETY: the descriptor is owned by what is registered, so it stays open and the same for as long.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Returns after one or more changes. Only their kind is told: whoever applies looks anyway. Dropping the
    /// future loses nothing.
    pub async fn changed(&mut self) -> io::Result<Changed> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut heard = Changed::default();
            let mut buffer = [0; 8192];
            loop {
                match recv(ready.get_inner().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => heard.note(&buffer[..length]),
                    // Overrun: messages were lost, so anything may have changed.
                    Err(nix::Error::ENOBUFS) => heard = Changed { addresses: true, links: true },
                    Err(nix::Error::EAGAIN) => break,
                    Err(nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if heard != Changed::default() {
                return Ok(heard);
            }
        }
    }
}

// === impl Changed ===

impl Changed {
    /// Of a datagram from the kernel, which holds messages of one kind.
    fn note(&mut self, datagram: &[u8]) {
        let kind = datagram.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        match kind {
            Some(libc::RTM_NEWLINK | libc::RTM_DELLINK) => self.links = true,
            _ => self.addresses = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_the_addresses_of_its_own_family() {
        let host: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let v4 = meant_by("0.0.0.0:443".parse().unwrap(), &host);
        assert_eq!(v4, ["10.0.0.1:443".parse().unwrap()]);
        let v6 = meant_by("[::]:443".parse().unwrap(), &host);
        assert_eq!(v6, ["[2001:db8::1]:443".parse().unwrap()]);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_is() {
        let bind = vec!["[::ffff:10.0.0.1]:443".parse().unwrap()];
        let entry = Guarded {
            entrypoint: "a".into(),
            bind,
            protocols: vec![Protocol::Tcp],
            lists: Vec::new(),
            shadow: false,
            limit: None,
            syn_cookies: SynCookies::OFF,
        };
        let guarded = expand(&[entry]).unwrap();
        assert_eq!(guarded[0].named, ["10.0.0.1:443".parse().unwrap()]);
    }

    #[test]
    fn the_host_has_a_loopback_address() {
        assert!(host_addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }
}
