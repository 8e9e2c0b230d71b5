//! Passthrough connections handed to the kernel: the client's and the server's connection are joined there, and packets go
//! from one into the other without a process in between. Opt-in (`offload = "splice-kernel"`); the relay is the fallback for
//! whatever can't be handed over, and gets it back whole.
//!
//! The order below has no moment in which a byte could be lost or seen twice:
//!
//! 1. The client's first bytes are looked at and a connection to the server is made, from a port that nobody else uses.
//! 2. The client's direction is held: the kernel drops what comes with payload, which the client will send again.
//! 3. What had arrived until then is copied. Both sockets tell how far they are.
//! 4. Both directions are written down as if the first bytes had been sent to the server already.
//! 5. They are sent. From here on packets pass by both sockets.
//! 6. The client's socket is closed without a word; the server's stays until the server has acknowledged those bytes, since it
//!    is what would send them again.
//!
//! Absent here: which connections are worth it (the route's business), and what is written about them (the caller's, who is
//! told of the end).

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use nix::libc;
use proxy_common::translate::{Flow, service, stage};
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::oneshot,
};

use crate::kernel::{
    KernelFault, route,
    translate::{Translation, key},
};

pub mod ending;
pub mod endpoint;
mod judge;
mod keeper;
pub mod ports;

pub use ending::{How, Limits, Who};
pub use judge::headers;
pub use keeper::{Ended, Keeper, Standing};

use judge::Side;
use keeper::{Known, Pending};

/// Where it is found who looks after handed-over connections: the kernel has one table of them, so a daemon has one keeper.
/// Workers ask for each connection.
#[derive(Clone, Default)]
pub struct Post(Arc<ArcSwapOption<Keeper>>);

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

/// A connection that wasn't handed over, whole: nothing of it was read or sent.
pub struct Refused {
    pub why: Why,
    pub client: TcpStream,
    /// `None`: it broke meanwhile.
    pub server: Option<ServerSide>,
}

/// The edge's connection to a server. Its port is in use as long as this is.
pub struct ServerSide {
    pub stream: TcpStream,
    pub lease: Lease,
}

/// Under what a connection is handed over.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The name of the service that has the server.
    pub service: &'a str,
    pub limits: Limits,
}

/// A port, given back when this goes.
pub struct Lease {
    keeper: Weak<Keeper>,
    server: SocketAddr,
    port: u16,
}

/// Why there is no connection to a server.
#[derive(Debug)]
pub enum NotConnected {
    /// It could not be handed over: connect as always, and relay.
    Refused(Why),
    /// The server's doing.
    Unreachable(io::Error),
}

/// Connects to a server in the way that is needed to hand the connection over later. How long is the caller's to say.
///
/// # Errors
/// When it could not be handed over, as far as that is known before; and when the server can't be reached.
pub async fn connect(
    keeper: &Arc<Keeper>,
    client: &TcpStream,
    server: SocketAddr,
) -> Result<ServerSide, NotConnected> {
    let asked = about_client(keeper, client, server);
    let refused = |why| {
        keeper.count_refused(why);
        NotConnected::Refused(why)
    };
    let longest = asked.map_err(refused)?.longest;
    for _ in 0..TRIES {
        let lease = Lease::take(keeper, server).ok_or_else(|| refused(Why::NoPort))?;
        let socket = match socket_from(lease.port, server, longest) {
            Ok(socket) => socket,
            // Somebody else has it, on whatever address.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(NotConnected::Unreachable(error)),
        };
        let stream = socket.connect(server).await.map_err(NotConnected::Unreachable)?;
        return Ok(ServerSide { stream, lease });
    }
    Err(refused(Why::NoPort))
}

/// Hands a connection over, or gives it back. What the client has sent must not have been read, but looked at; what it
/// sends from here on goes to the server. How it ends comes by the receiver.
///
/// # Errors
/// With the reason, and everything that the relay needs to go on.
pub fn hand_over(
    keeper: &Arc<Keeper>,
    client: TcpStream,
    server: ServerSide,
    terms: Terms<'_>,
) -> Result<oneshot::Receiver<Ended>, Box<Refused>> {
    let joined = match join(keeper, &client, &server.stream, terms) {
        Ok(joined) => joined,
        Err(why) => {
            keeper.count_refused(why);
            // Part of the first bytes may be at the server: they can't be sent on this connection once more.
            let server = Some(server).filter(|_| why != Why::ServerEnded);
            return Err(Box::new(Refused { why, client, server }));
        }
    };
    let Joined { client_key, server_key, end } = joined;
    let (at_end, ended) = oneshot::channel();
    let lease = Some(server.lease);
    let known = Known {
        server: server_key,
        lease,
        service: service(terms.service),
        limits: terms.limits,
        at_end: Some(at_end),
    };
    keeper.keep(client_key, known);
    keeper.settle_later(Pending {
        client: client_key,
        server: server_key,
        end,
        since: Instant::now(),
        _socket: server.stream,
    });
    // 6. It is silent.
    drop(client);
    Ok(ended)
}

struct Asked {
    local: SocketAddr,
    peer: SocketAddr,
    seen: proxy_common::translate::Seen,
    /// The longest segment that the client takes.
    longest: u32,
    interface: u32,
}

fn about_client(keeper: &Keeper, client: &TcpStream, server: SocketAddr) -> Result<Asked, Why> {
    let ends = client.local_addr().and_then(|local| Ok((local, client.peer_addr()?)));
    let (local, peer) = ends.map_err(|_| Why::ClientEnded)?;
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (local, peer) = (canonical(local), canonical(peer));
    if local.is_ipv4() != server.is_ipv4() {
        return Err(Why::Families);
    }
    let info = endpoint::info(client.as_fd()).map_err(|_| Why::ClientEnded)?;
    let waiting = endpoint::unread(client.as_fd()).map_err(|_| Why::ClientEnded)?;
    let seen = judge::client(&info, keeper.kernel().seen(&key(peer, local)), waiting as usize)?;
    let interface = way(local, peer)?;
    Ok(Asked { longest: judge::longest(&seen, info.path, peer), local, peer, seen, interface })
}

fn way(local: SocketAddr, peer: SocketAddr) -> Result<u32, Why> {
    match route::interface(local.ip(), peer.ip()) {
        Ok(Some(interface)) => Ok(interface),
        Ok(None) | Err(_) => Err(Why::NoWay),
    }
}

/// How many ports are tried that somebody else turns out to have.
const TRIES: usize = 8;

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
fn join(keeper: &Keeper, client: &TcpStream, server: &TcpStream, terms: Terms<'_>) -> Result<Joined, Why> {
    let peer = server.peer_addr().map_err(|_| Why::ServerEnded)?;
    let asked = about_client(keeper, client, peer)?;
    let kernel = keeper.kernel();
    let local = server.local_addr().map_err(|_| Why::ServerEnded)?;
    let (client_key, server_key) = (key(asked.peer, asked.local), key(peer, local));
    let seen = kernel.seen(&server_key).ok_or(Why::Unseen)?;
    let interface = way(local, peer)?;
    let now = now();

    // 2. From here on nothing new gets into the client's socket.
    let mut attempt = Attempt { kernel, keys: vec![client_key], silent: Vec::new() };
    let held = Flow { stage: stage::HELD, begun: now, last: now, ..Flow::default() };
    kernel.set(&client_key, &held).map_err(|fault| table_full(&fault))?;

    // 3. What is in it are the first bytes. They stay there: if this doesn't go well, the relay reads them.
    let first = look(client)?;
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
    let joined = judge::join(&client_side, &server_side, first.len(), now)?;
    let [up, down] = joined.map(|(key, flow)| (key, terms.noted_in(flow)));
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
    let sent = send(server, &first);
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

/// All that the client has sent, without taking it.
fn look(client: &TcpStream) -> Result<Vec<u8>, Why> {
    let waiting = endpoint::unread(client.as_fd()).map_err(|_| Why::ClientEnded)?;
    let mut first = vec![0; waiting as usize + 1];
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the kernel writes at most as many bytes as there are.
    let read = unsafe { libc::recv(client.as_raw_fd(), first.as_mut_ptr().cast(), first.len(), flags) };
    match usize::try_from(read) {
        Ok(read) if read == waiting as usize && read > 0 => first.truncate(read),
        // More came in between, from what was on its way to the socket already; or none at all, which is nothing to begin with.
        Ok(_) => return Err(Why::Changed),
        Err(_) => return Err(Why::ClientEnded),
    }
    Ok(first)
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

// === impl Why ===

impl Why {
    /// In metrics, `weir status` and the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Options => "options",
            Self::Longest => "longest",
            Self::TooMuchAtFirst => "too_much_at_first",
            Self::Misplaced => "misplaced",
            Self::ServerSpoke => "server_spoke",
            Self::ClientEnded => "client_ended",
            Self::ServerEnded => "server_ended",
            Self::Families => "families",
            Self::NoWay => "no_way",
            Self::NoPort => "no_port",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::TableFull => "table_full",
            Self::Changed => "changed",
        }
    }
}

// === impl Post ===

impl Post {
    /// Whoever looks after handed-over connections now. `None`: no service asks for it, or it can't be had here.
    #[must_use]
    pub fn keeper(&self) -> Option<Arc<Keeper>> {
        self.0.load_full()
    }

    /// From now on this one does.
    pub fn appoint(&self, keeper: Arc<Keeper>) {
        self.0.store(Some(keeper));
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("is_taken", &self.0.load().is_some()).finish()
    }
}

// === impl Terms ===

impl Terms<'_> {
    /// Written down with the flow, for whoever takes it over.
    fn noted_in(&self, flow: Flow) -> Flow {
        let seconds = |time: Duration| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
        Flow {
            service: service(self.service),
            idle: seconds(self.limits.idle),
            lifetime: self.limits.lifetime.map_or(0, seconds),
            ..flow
        }
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

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.server)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("why", &self.why).finish_non_exhaustive()
    }
}
