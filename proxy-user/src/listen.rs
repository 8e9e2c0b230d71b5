//! Listening sockets: one per worker and address, so that the kernel spreads connections and no lock is shared
//! (`SO_REUSEPORT`). Over UDP likewise, for HTTP/3 and for what is carried untouched.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::EntrypointAddr;

/// Connections that may wait for accept. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Datagrams that may wait on a socket, in bytes.
const UDP_BUFFER: usize = 2 * 1024 * 1024;

/// A socket's end of the bargain: as the workers take it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// What is listened for at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    /// HTTP/3.
    Udp,
    /// UDP that is carried untouched.
    Datagrams,
}

impl Transport {
    /// Whether sockets of both are in each other's way.
    pub fn shares_ports_with(self, other: Self) -> bool {
        (self == Self::Tcp) == (other == Self::Tcp)
    }
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    #[error(
        "entrypoint `{entrypoint}`: {addr} is taken by another process: stop that one (`ss -ltunp` shows it), or choose another port"
    )]
    Taken { entrypoint: String, addr: SocketAddr },
    #[error(
        "entrypoint `{entrypoint}`: no permission to listen on {addr}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    )]
    NoPermission { entrypoint: String, addr: SocketAddr },
    #[error(
        "entrypoint `{entrypoint}`: {addr} is not an address of this host: `ip address` shows those that are; if something \
         brings it later (keepalived, say), write `floating = true`"
    )]
    NotLocal { entrypoint: String, addr: SocketAddr },
    #[error("entrypoint `{entrypoint}`: can't listen on {addr}: {error}")]
    Other { entrypoint: String, addr: SocketAddr, error: io::Error },
}

/// How an address is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Nobody else may be listening there.
    pub exclusive: bool,
    /// It may be one that this host doesn't have yet.
    pub floating: bool,
}

/// Opens one listening socket per worker.
///
/// # Errors
/// When the address is taken, not ours or not permitted; then nothing is left open.
pub fn listen(
    entrypoint: &str,
    (addr, transport): (EntrypointAddr, Transport),
    workers: usize,
    Manner { exclusive, floating }: Manner,
) -> Result<Vec<Listener>, ListenFault> {
    let fault = |error: io::Error| {
        let (entrypoint, addr) = (entrypoint.to_owned(), addr.0);
        match error.kind() {
            io::ErrorKind::AddrInUse => ListenFault::Taken { entrypoint, addr },
            io::ErrorKind::PermissionDenied => ListenFault::NoPermission { entrypoint, addr },
            io::ErrorKind::AddrNotAvailable => ListenFault::NotLocal { entrypoint, addr },
            _ => ListenFault::Other { entrypoint, addr, error },
        }
    };
    // With SO_REUSEPORT a second daemon would silently get a share of the connections: so the first look is
    // without it, and fails when anybody else listens there.
    if exclusive {
        socket(addr.0, transport, false, floating).map_err(fault)?;
    }
    (0..workers).map(|_| socket(addr.0, transport, true, floating)).collect::<io::Result<_>>().map_err(fault)
}

fn socket(addr: SocketAddr, transport: Transport, shared: bool, floating: bool) -> io::Result<Listener> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp | Transport::Datagrams => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        // `[::]` is IPv6 alone, so that it stands beside `0.0.0.0` and the gate's scope says what is meant.
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // Connections of an earlier daemon in TIME_WAIT don't keep the port. With UDP it would share the port instead.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(shared)?;
    if floating && addr.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else if floating {
        socket.set_freebind_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if transport != Transport::Tcp {
        // Many connections share it. The kernel caps it at `net.core.rmem_max`, and less is no fault.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    }
    socket.bind(&addr.into())?;
    Ok(match transport {
        Transport::Tcp => {
            socket.listen(BACKLOG)?;
            Listener::Tcp(socket.into())
        }
        Transport::Udp | Transport::Datagrams => Listener::Udp(socket.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Manner = Manner { exclusive: true, floating: false };

    #[test]
    fn workers_share_an_address_but_nobody_else_may() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let any = (EntrypointAddr("127.0.0.1:0".parse().unwrap()), transport);
            let first = listen("web", any, 1, ALONE).unwrap();
            let addr = match &first[0] {
                Listener::Tcp(socket) => socket.local_addr(),
                Listener::Udp(socket) => socket.local_addr(),
            };
            let at = (EntrypointAddr(addr.unwrap()), transport);
            let error = listen("web", at, 2, ALONE).unwrap_err();
            assert!(matches!(error, ListenFault::Taken { .. }), "{error}");
            drop(first);
            let both = listen("web", at, 2, ALONE).unwrap();
            assert_eq!(both.len(), 2);
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let addr = EntrypointAddr("192.0.2.1:8080".parse().unwrap());
        let sentence = listen("web", (addr, Transport::Tcp), 1, ALONE).unwrap_err().to_string();
        assert!(sentence.contains("`web`") && sentence.contains("192.0.2.1:8080"), "{sentence}");
        assert!(sentence.contains("`floating = true`"), "{sentence}");
    }

    #[test]
    fn an_address_that_somebody_brings_later_can_be_listened_on_before() {
        for addr in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            let addr = EntrypointAddr(addr.parse().unwrap());
            for transport in [Transport::Tcp, Transport::Udp] {
                let manner = Manner { floating: true, ..ALONE };
                assert_eq!(listen("web", (addr, transport), 2, manner).unwrap().len(), 2);
            }
        }
    }
}
