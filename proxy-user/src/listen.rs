//! Listening sockets: one per worker and address, so that the kernel spreads connections and no lock is shared
//! (`SO_REUSEPORT`). For HTTP/3 likewise over UDP.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{address::EntrypointAddr, connection::http3::steering::Elder};

/// Connections that may wait for accept. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Datagrams that may wait on a socket of HTTP/3, in bytes.
const UDP_BUFFER: usize = 2 * 1024 * 1024;

/// A socket's end of the bargain: as the workers take it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// With predecessors that have connections at it.
    Udp(UdpSocket, Vec<Elder>),
}

impl Listener {
    /// The same socket once more.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Into::into),
            Self::Udp(socket, _) => socket.try_clone().map(Into::into),
        }
    }
}

/// What is listened for at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    /// HTTP/3.
    Udp,
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
        "entrypoint `{entrypoint}`: {addr} is not an address of this host: `ip address` shows those that are"
    )]
    NotLocal { entrypoint: String, addr: SocketAddr },
    #[error("entrypoint `{entrypoint}`: can't listen on {addr}: {error}")]
    Other { entrypoint: String, addr: SocketAddr, error: io::Error },
}

/// Opens one listening socket per worker. `exclusive`: nobody else may be listening there.
///
/// # Errors
/// When the address is taken, not ours or not permitted; then nothing is left open.
pub fn listen(
    entrypoint: &str,
    (addr, transport): (EntrypointAddr, Transport),
    workers: usize,
    exclusive: bool,
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
    open(addr.0, transport, workers, exclusive).map_err(fault)
}

fn open(addr: SocketAddr, transport: Transport, count: usize, exclusive: bool) -> io::Result<Vec<Listener>> {
    // With SO_REUSEPORT a second daemon would silently get a share of the connections: so the first look is
    // without it, and fails when anybody else listens there.
    if exclusive {
        socket(addr, transport, false)?;
    }
    (0..count).map(|_| socket(addr, transport, true)).collect()
}

/// Goes on with sockets that somebody else has opened: none of them is closed, since that would reset who waits in its queue. Where
/// there are fewer than workers, more are opened beside them; not of UDP, where connections are found by their socket.
pub fn go_on(
    (addr, transport): (EntrypointAddr, Transport),
    mut inherited: Vec<Listener>,
    workers: usize,
) -> Vec<Listener> {
    if transport == Transport::Udp {
        return inherited;
    }
    let missing = workers.saturating_sub(inherited.len());
    match open(addr.0, transport, missing, false) {
        Ok(more) => inherited.extend(more),
        // They are another user's, or were opened by somebody who shares with nobody. Those that there are serve all the same.
        Err(error) => tracing::debug!(%addr, %error, "no more sockets beside those that were taken over"),
    }
    inherited
}

fn socket(addr: SocketAddr, transport: Transport, shared: bool) -> io::Result<Listener> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
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
    socket.set_nonblocking(true)?;
    if transport == Transport::Udp {
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
        Transport::Udp => Listener::Udp(socket.into(), Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_an_address_but_nobody_else_may() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let any = (EntrypointAddr("127.0.0.1:0".parse().unwrap()), transport);
            let first = listen("web", any, 1, true).unwrap();
            let addr = match &first[0] {
                Listener::Tcp(socket) => socket.local_addr(),
                Listener::Udp(socket, _) => socket.local_addr(),
            };
            let at = (EntrypointAddr(addr.unwrap()), transport);
            let error = listen("web", at, 2, true).unwrap_err();
            assert!(matches!(error, ListenFault::Taken { .. }), "{error}");
            drop(first);
            let both = listen("web", at, 2, true).unwrap();
            assert_eq!(both.len(), 2);
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let addr = EntrypointAddr("192.0.2.1:8080".parse().unwrap());
        let sentence = listen("web", (addr, Transport::Tcp), 1, true).unwrap_err().to_string();
        assert!(sentence.contains("`web`") && sentence.contains("192.0.2.1:8080"), "{sentence}");
    }
}
