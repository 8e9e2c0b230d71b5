//! How long segments clients are asked to send. A connection can be handed over only if the server's side takes whatever the client
//! sends, and the client is told how much that may be before anybody knows where it wants to go: so it is told what all servers take to
//! which a connection of that entrypoint may be handed over.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::libc;

use crate::{
    config::model::{EntrypointId, MadeOf, Offload, ServiceId},
    handover::headers,
    snapshot::Snapshot,
    worker::Longest,
};

/// Where it isn't said, clients may send what they like.
pub fn longest(snapshot: &Snapshot) -> Longest {
    let mut all = Longest::new();
    for (index, entrypoint) in snapshot.entrypoints.iter().enumerate() {
        let mut servers = Vec::new();
        for route in snapshot.config.carried.iter().filter(|route| route.is_at(EntrypointId(index))) {
            gather(snapshot, route.service, &mut servers);
        }
        for at in &entrypoint.bind {
            let same_family = servers.iter().filter(|server| server.is_ipv4() == at.0.is_ipv4());
            // To where no way leads, nothing is handed over.
            let carried = same_family.filter_map(|server| path(*server).ok()).min();
            all.extend(carried.map(|path| (*at, path.saturating_sub(headers(at.0)))));
        }
    }
    all
}

/// The servers of a service, and of those that it is made of.
fn gather(snapshot: &Snapshot, id: ServiceId, servers: &mut Vec<SocketAddr>) {
    let written = &snapshot.config.services[id.0];
    if written.offload == Offload::SpliceKernel {
        servers.extend(snapshot.services[id.0].servers.iter().map(|server| server.addr.0));
    }
    for part in written.made_of.iter().flat_map(MadeOf::parts) {
        gather(snapshot, part, servers);
    }
}

/// The largest packet that the way there carries, as far as this host knows.
fn path(to: SocketAddr) -> io::Result<u32> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // Nothing is sent: to connect a datagram's socket is to ask for the way.
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    let (level, option) =
        if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut mtu: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one number, of which the length says how long it is.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(mtu.unsigned_abs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_this_host_itself_is_wide() {
        assert!(path("127.0.0.1:9".parse().unwrap()).unwrap() > 1500);
    }
}
