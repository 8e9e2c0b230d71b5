//! Listening sockets: one per worker and address, so that the kernel spreads connections and no lock is shared
//! (`SO_REUSEPORT`).

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::EntrypointAddr;

/// Connections that may wait for accept. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    #[error(
        "entrypoint `{entrypoint}`: {addr} is taken by another process: stop that one (`ss -ltnp` shows it), or choose another port"
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
    addr: EntrypointAddr,
    workers: usize,
    exclusive: bool,
) -> Result<Vec<TcpListener>, ListenFault> {
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
        socket(addr.0, false).map_err(fault)?;
    }
    (0..workers).map(|_| socket(addr.0, true)).collect::<io::Result<_>>().map_err(fault)
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // `[::]` is IPv6 alone, so that it stands beside `0.0.0.0` and the gate's scope says what is meant.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier daemon in TIME_WAIT don't keep the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_an_address_but_nobody_else_may() {
        let first = listen("web", EntrypointAddr("127.0.0.1:0".parse().unwrap()), 1, true).unwrap();
        let addr = EntrypointAddr(first[0].local_addr().unwrap());
        let error = listen("web", addr, 2, true).unwrap_err();
        assert!(matches!(error, ListenFault::Taken { .. }), "{error}");
        drop(first);
        let both = listen("web", addr, 2, true).unwrap();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn a_foreign_address_is_named() {
        let addr = EntrypointAddr("192.0.2.1:8080".parse().unwrap());
        let sentence = listen("web", addr, 1, true).unwrap_err().to_string();
        assert!(sentence.contains("`web`") && sentence.contains("192.0.2.1:8080"), "{sentence}");
    }
}
