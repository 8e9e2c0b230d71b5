//! Passthrough connections handed to the kernel: the client's and the server's connection are joined there, and packets go
//! from one into the other without a process in between. Opt-in (`offload = "splice-kernel"`); the relay is the fallback for
//! whatever can't be handed over, and gets it back whole.
//!
//! The order below has no moment in which a byte could be lost or seen twice:
//!
//! 1. The client's first bytes are read and a connection to the server is made, from a port that nobody else uses.
//! 2. The client's direction is held: the kernel drops what comes with payload, which the client will send again.
//! 3. What had arrived until then is read. Both sockets tell how far they are.
//! 4. Both directions are written down as if the first bytes had been sent to the server already.
//! 5. They are sent. From here on packets pass by both sockets.
//! 6. The client's socket is closed without a word; the server's stays until the server has acknowledged those bytes, since it
//!    is what would send them again.
//!
//! Absent here: which connections are worth it (the route's business), and what is written about them (the caller's, who is
//! called back at the end).

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use nix::libc;
use proxy_common::translate::{Flow, stage};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::kernel::{
    KernelFault, route,
    translate::{Translation, key},
};

pub mod ending;
mod endpoint;
mod judge;
mod keeper;
pub mod ports;

pub use ending::{How, Limits, Who};
pub use keeper::{Ended, Keeper, Standing};

use judge::Side;
use keeper::{Known, Pending};

/// Why a connection stays with the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Why {
    #[error(
        "its client's first packet did not come by an interface at which handed-over connections are carried"
    )]
    Unseen,
    #[error("the client and the server do not use the same TCP options")]
    Options,
    #[error("one side sends longer segments than the way to the other side takes")]
    Longest,
    #[error("the client sends more at first than the server takes at once")]
    TooMuchAtFirst,
    #[error("segments came in another order than they were sent in")]
    Misplaced,
    #[error("the server spoke first")]
    ServerSpoke,
    #[error("the client has ended the connection already")]
    ClientEnded,
    #[error("the server has ended the connection already")]
    ServerEnded,
    #[error("the client speaks IPv4 and the server IPv6, or the other way round")]
    Families,
    #[error("the way to the client or to the server does not leave this host")]
    NoWay,
    #[error("all ports for handed-over connections are in use, or were a minute ago")]
    NoPort,
    #[error("no connection to the server")]
    Unreachable,
    #[error("the daemon may not (CAP_NET_ADMIN), or the kernel does not know how")]
    NotPermitted,
    #[error("the kernel's table of handed-over connections is full")]
    TableFull,
    #[error("the connection changed meanwhile")]
    Changed,
}

/// A connection that wasn't handed over, for whoever relays it.
pub struct Refused {
    pub why: Why,
    pub client: TcpStream,
    /// A connection to the server, if there is one. Nothing was sent on it.
    pub server: Option<ServerSide>,
    /// What the client sent and nobody has passed on.
    pub first: Vec<u8>,
    /// Why there is no connection to the server, where that is it.
    pub unreachable: Option<io::Error>,
}

/// The edge's connection to a server. Its port is in use as long as this is.
pub struct ServerSide {
    pub stream: TcpStream,
    lease: Lease,
}

/// A port, given back when this goes.
pub struct Lease {
    keeper: Weak<Keeper>,
    server: SocketAddr,
    port: u16,
}

/// A connection that is to be handed over.
pub struct Candidate {
    pub client: TcpStream,
    pub server: SocketAddr,
    /// What the server gets first: a PROXY protocol header, if it wants one, and what was read of the client.
    pub first: Vec<u8>,
    /// How long to try to connect.
    pub patience: Duration,
    pub limits: Limits,
    /// Called with how it ended, once.
    pub at_end: Box<dyn FnOnce(Ended) + Send>,
}

/// Hands a connection over, or gives it back.
///
/// # Errors
/// With the reason, and everything that the relay needs to go on.
pub async fn hand_over(keeper: &Arc<Keeper>, candidate: Candidate) -> Result<(), Box<Refused>> {
    let Candidate { client, server, mut first, patience, limits, at_end } = candidate;
    let refused = |why, client, server, first| {
        keeper.count_refused(why);
        Err(Box::new(Refused { why, client, server, first, unreachable: None }))
    };

    // 1. What can be known before the server is bothered; then a connection to it.
    let asked = about_client(keeper, &client, server, first.len());
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return refused(why, client, None, first),
    };
    let server_side = match connect(keeper, server, asked.longest, patience).await {
        Ok(server_side) => server_side,
        Err(Failed::NoPort) => return refused(Why::NoPort, client, None, first),
        Err(Failed::Unreachable(error)) => {
            keeper.count_refused(Why::Unreachable);
            let (why, unreachable) = (Why::Unreachable, Some(error));
            return Err(Box::new(Refused { why, client, server: None, first, unreachable }));
        }
    };

    // 2. to 5. Nothing waits from here on.
    match join(keeper, &client, asked, &server_side.stream, &mut first) {
        Ok(joined) => {
            let now = Instant::now();
            let known = Known {
                server: joined.server_key,
                lease: Some(server_side.lease),
                limits,
                at_end: Some(at_end),
            };
            keeper.keep(joined.client_key, known);
            keeper.settle_later(Pending {
                client: joined.client_key,
                server: joined.server_key,
                end: joined.end,
                since: now,
                _socket: server_side.stream,
            });
            // 6. It is silent.
            drop(client);
            Ok(())
        }
        // Part of the first bytes is at the server: they can't be sent on this connection once more.
        Err(Why::ServerEnded) => refused(Why::ServerEnded, client, None, first),
        Err(why) => refused(why, client, Some(server_side), first),
    }
}

struct Asked {
    local: SocketAddr,
    peer: SocketAddr,
    seen: proxy_common::translate::Seen,
    /// The longest segment that the client takes.
    longest: u32,
    interface: u32,
}

fn about_client(keeper: &Keeper, client: &TcpStream, server: SocketAddr, first: usize) -> Result<Asked, Why> {
    let ends = client.local_addr().and_then(|local| Ok((local, client.peer_addr()?)));
    let (local, peer) = ends.map_err(|_| Why::ClientEnded)?;
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (local, peer) = (canonical(local), canonical(peer));
    if local.is_ipv4() != server.is_ipv4() {
        return Err(Why::Families);
    }
    let info = endpoint::info(client.as_fd()).map_err(|_| Why::ClientEnded)?;
    let seen = judge::client(&info, keeper.kernel().seen(&key(peer, local)), first)?;
    let interface = way(local, peer)?;
    Ok(Asked { longest: judge::longest(&seen, info.path, peer), local, peer, seen, interface })
}

fn way(local: SocketAddr, peer: SocketAddr) -> Result<u32, Why> {
    match route::interface(local.ip(), peer.ip()) {
        Ok(Some(interface)) => Ok(interface),
        Ok(None) | Err(_) => Err(Why::NoWay),
    }
}

enum Failed {
    NoPort,
    Unreachable(io::Error),
}

/// How many ports are tried that somebody else turns out to have.
const TRIES: usize = 8;

/// Connects from a port of ours. The server is told what the client takes, so that it sends nothing longer.
async fn connect(
    keeper: &Arc<Keeper>,
    server: SocketAddr,
    longest: u32,
    patience: Duration,
) -> Result<ServerSide, Failed> {
    let mut taken = None;
    for _ in 0..TRIES {
        let lease = Lease::take(keeper, server).ok_or(Failed::NoPort)?;
        let socket = socket_from(lease.port, server, longest);
        match socket {
            Ok(socket) => {
                taken = Some((lease, socket));
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(Failed::Unreachable(error)),
        }
    }
    let Some((lease, socket)) = taken else { return Err(Failed::NoPort) };
    let connected = tokio::time::timeout(patience, socket.connect(server)).await;
    match connected {
        Ok(Ok(stream)) => Ok(ServerSide { stream, lease }),
        Ok(Err(error)) => Err(Failed::Unreachable(error)),
        Err(_) => Err(Failed::Unreachable(io::ErrorKind::TimedOut.into())),
    }
}

fn socket_from(port: u16, server: SocketAddr, longest: u32) -> io::Result<TcpSocket> {
    let (socket, any): (_, SocketAddr) = if server.is_ipv4() {
        (TcpSocket::new_v4()?, ([0, 0, 0, 0], port).into())
    } else {
        (TcpSocket::new_v6()?, ([0_u16; 8], port).into())
    };
    // The port may be in use towards other servers.
    socket.set_reuseaddr(true)?;
    // What is written goes out at once: nothing ever acknowledges what came before it to this socket.
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_mss(longest)?;
    socket.bind(any)?;
    Ok(socket)
}

struct Joined {
    client_key: proxy_common::translate::FlowKey,
    server_key: proxy_common::translate::FlowKey,
    /// What the server acknowledges when it has all that it gets at first.
    end: u32,
}

/// Undoes what was done, unless it went well.
struct Attempt<'a> {
    kernel: &'a Translation,
    keys: Vec<proxy_common::translate::FlowKey>,
    silent: Vec<BorrowedFd<'a>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            if let Err(fault) = self.kernel.remove(key) {
                tracing::warn!(%fault, "a connection that was not handed over after all stays in the kernel's table");
            }
        }
        for socket in &self.silent {
            let _ = endpoint::wake(*socket);
        }
    }
}

/// Reads how far both are, writes it down, and sends the first bytes.
fn join(
    keeper: &Keeper,
    client: &TcpStream,
    asked: Asked,
    server: &TcpStream,
    first: &mut Vec<u8>,
) -> Result<Joined, Why> {
    let kernel = keeper.kernel();
    let local = server.local_addr().map_err(|_| Why::ServerEnded)?;
    let peer = server.peer_addr().map_err(|_| Why::ServerEnded)?;
    let (client_key, server_key) = (key(asked.peer, asked.local), key(peer, local));
    let seen = kernel.seen(&server_key).ok_or(Why::Unseen)?;
    let interface = way(local, peer)?;
    let now = now();

    // 2. From here on nothing new gets into the client's socket.
    let mut attempt = Attempt { kernel, keys: vec![client_key], silent: Vec::new() };
    let held = Flow { stage: stage::HELD, begun: now, last: now, ..Flow::default() };
    kernel.set(&client_key, &held).map_err(|fault| table_full(&fault))?;

    // 3. What is in it belongs to the first bytes.
    drain(client, first)?;
    for socket in [client.as_fd(), server.as_fd()] {
        endpoint::silence(socket).map_err(|_| Why::NotPermitted)?;
        attempt.silent.push(socket);
    }
    let unread = |error: io::Error| {
        tracing::debug!(%error, "could not read how far a connection is");
        Why::NotPermitted
    };
    if endpoint::unread(server.as_fd()).map_err(unread)? > 0 {
        return Err(Why::ServerSpoke);
    }
    if endpoint::unacknowledged(client.as_fd()).map_err(unread)? > 0 {
        return Err(Why::Changed);
    }
    let side = |stream: &TcpStream, local, peer, seen, interface| {
        let (info, position) = (endpoint::info(stream.as_fd())?, endpoint::position(stream.as_fd())?);
        Ok(Side { local, peer, info, position, seen, interface })
    };
    let client_side = side(client, asked.local, asked.peer, asked.seen, asked.interface).map_err(unread)?;
    let server_side = side(server, local, peer, seen, interface).map_err(unread)?;

    // 4. The way back first: the server answers only what has come to it.
    let [up, down] = judge::join(&client_side, &server_side, first.len(), now)?;
    attempt.keys.push(down.0);
    kernel.set(&down.0, &down.1).map_err(|fault| table_full(&fault))?;
    kernel.set(&up.0, &up.1).map_err(|fault| table_full(&fault))?;
    // A packet that was past the hook when it was held may have got into the socket after that was read.
    let still = endpoint::position(client.as_fd()).map_err(unread)?.received == client_side.position.received;
    if !still || !endpoint::info(client.as_fd()).map_err(unread)?.is_established() {
        return Err(Why::Changed);
    }

    // 5. The first bytes. If this process is killed after that, nothing is said by the socket that sends them again.
    endpoint::wake(server.as_fd()).map_err(unread)?;
    let sent = send(server, first);
    endpoint::silence(server.as_fd()).map_err(unread)?;
    match sent {
        Ok(sent) if sent == first.len() => {}
        Ok(_) | Err(_) => return Err(Why::ServerEnded),
    }
    attempt.keys.clear();
    attempt.silent.clear();
    let end = judge::up_to(server_side.position.sent, first.len());
    Ok(Joined { client_key, server_key, end })
}

fn table_full(fault: &KernelFault) -> Why {
    tracing::debug!(%fault, "a connection could not be handed over");
    Why::TableFull
}

/// Reads all that there is.
fn drain(client: &TcpStream, first: &mut Vec<u8>) -> Result<(), Why> {
    loop {
        let mut chunk = [0_u8; 4096];
        // SAFETY: the kernel writes at most as many bytes as there are.
        let read = unsafe {
            libc::recv(client.as_raw_fd(), chunk.as_mut_ptr().cast(), chunk.len(), libc::MSG_DONTWAIT)
        };
        match usize::try_from(read) {
            Ok(0) => return Err(Why::ClientEnded),
            Ok(read) => first.extend_from_slice(&chunk[..read]),
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                io::ErrorKind::Interrupted => {}
                _ => return Err(Why::ClientEnded),
            },
        }
    }
}

fn send(server: &TcpStream, first: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads as many bytes as there are.
    let sent = unsafe { libc::send(server.as_raw_fd(), first.as_ptr().cast(), first.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// By the clock that the program reads.
fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

// === impl ServerSide ===

impl ServerSide {
    /// The connection, and what keeps its port from being used again: to be kept for as long.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Lease) {
        (self.stream, self.lease)
    }
}

// === impl Lease ===

impl Lease {
    fn take(keeper: &Arc<Keeper>, server: SocketAddr) -> Option<Self> {
        let port = keeper.take_port(server)?;
        Some(Self { keeper: Arc::downgrade(keeper), server, port })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.give_port_back(self.server, self.port);
        }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("why", &self.why)
            .field("first", &self.first.len())
            .finish_non_exhaustive()
    }
}
