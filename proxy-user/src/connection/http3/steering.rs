//! Whose a datagram is, while two daemons have connections at one socket.
//!
//! A successor takes over the very sockets, and reads all that comes. Every connection id tells which process gave it out (its
//! *epoch*), so what is for a connection of a predecessor's is passed on to it, through a tunnel that came along with the socket. The
//! predecessor reads from there, and sends by its own descriptor of the socket as before: clients notice nothing.
//!
//! Epochs are drawn by lot. A client's own first choice of an id looks like a predecessor's once in four billion times.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram as StdTunnel,
    },
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_lc_rs::rand;
use futures_util::task::AtomicWaker;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime as _, TokioRuntime, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::net::UnixDatagram as Tunnel;

/// By which process an id was given out.
pub type Epoch = [u8; 4];

/// An epoch, and what tells connections apart.
const ID_LENGTH: usize = 12;

/// Before a datagram in a tunnel: ECN, where it was sent to, where it came from.
const HEAD: usize = 1 + 17 + 18;

/// UDP has no longer ones.
const LONGEST: usize = 1 << 16;

/// This process's.
static EPOCH: LazyLock<Epoch> = LazyLock::new(|| {
    let mut epoch = Epoch::default();
    if rand::fill(&mut epoch).is_err() {
        unreachable!("the library's generator has seeded itself when it was loaded");
    }
    epoch
});

/// All sockets of this process, as long as there is a connection at them.
static SOCKETS: Mutex<Vec<Weak<Steered>>> = Mutex::new(Vec::new());

/// A socket as quinn has it.
#[derive(Debug)]
pub struct Steered {
    io: Arc<dyn AsyncUdpSocket>,
    shared: OwnedFd,
    /// Whether one of the two below is to be looked at.
    is_alone: AtomicBool,
    elders: Mutex<Vec<Elder>>,
    behind: Mutex<Behind>,
    wakes: AtomicWaker,
}

/// A predecessor that has connections at a socket.
#[derive(Debug)]
pub struct Elder {
    pub epoch: Epoch,
    pub tunnel: OwnedFd,
}

/// Where this process's datagrams come from when a successor reads the socket.
#[derive(Debug)]
enum Behind {
    Nobody,
    /// A successor is about to.
    Prepared(StdTunnel),
    /// It does.
    Left(StdTunnel),
    Open(Tunnel),
}

/// Ids with the epoch of this process.
#[derive(Debug)]
pub struct Ids;

/// What a successor gets of a socket.
#[derive(Debug)]
pub struct Share {
    pub socket: OwnedFd,
    pub elders: Vec<Elder>,
}

/// The shares of all sockets, for a successor that may take them.
pub fn share() -> Vec<Share> {
    let sockets = all();
    sockets.iter().filter_map(|socket| socket.share().ok()).collect()
}

/// The successor reads all sockets from here on.
pub fn leave() {
    all().iter().for_each(|socket| socket.leave());
}

fn all() -> Vec<Arc<Steered>> {
    let mut sockets = lock(&SOCKETS);
    sockets.retain(|socket| socket.strong_count() > 0);
    sockets.iter().filter_map(Weak::upgrade).collect()
}

/// Somebody who panicked has left it as good as any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By which process the id was given out that a datagram is for.
fn epoch_of(datagram: &[u8]) -> Option<Epoch> {
    const LONG: u8 = 0x80;
    let id = match datagram {
        [first, rest @ ..] if first & LONG == 0 => rest,
        [_, _, _, _, _, length, rest @ ..] if usize::from(*length) == ID_LENGTH => rest,
        _ => return None,
    };
    (id.len() >= ID_LENGTH).then(|| [id[0], id[1], id[2], id[3]])
}

// === impl Ids ===

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LENGTH];
        id[..4].copy_from_slice(&*EPOCH);
        if rand::fill(&mut id[4..]).is_err() {
            unreachable!("the library's generator has seeded itself when it was loaded");
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

// === impl Steered ===

impl Steered {
    /// Around a socket at which `elders` may have connections. Needs a runtime around it.
    ///
    /// # Errors
    /// When the system doesn't let it be used.
    pub fn new(socket: std::net::UdpSocket, elders: Vec<Elder>) -> io::Result<Arc<Self>> {
        let shared = socket.as_fd().try_clone_to_owned()?;
        let steered = Arc::new(Self {
            io: TokioRuntime.wrap_udp_socket(socket)?,
            shared,
            is_alone: AtomicBool::new(elders.is_empty()),
            elders: Mutex::new(elders),
            behind: Mutex::new(Behind::Nobody),
            wakes: AtomicWaker::new(),
        });
        lock(&SOCKETS).push(Arc::downgrade(&steered));
        Ok(steered)
    }

    fn share(&self) -> io::Result<Share> {
        let (flags, kind) = (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockType::SeqPacket);
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags)?;
        let mut elders = Vec::new();
        for Elder { epoch, tunnel } in &*lock(&self.elders) {
            elders.push(Elder { epoch: *epoch, tunnel: tunnel.try_clone()? });
        }
        elders.push(Elder { epoch: *EPOCH, tunnel: theirs });
        *lock(&self.behind) = Behind::Prepared(ours.into());
        Ok(Share { socket: self.shared.try_clone()?, elders })
    }

    fn leave(&self) {
        let mut behind = lock(&self.behind);
        if let Behind::Prepared(tunnel) = std::mem::replace(&mut *behind, Behind::Nobody) {
            *behind = Behind::Left(tunnel);
            self.is_alone.store(false, Ordering::Release);
        }
        drop(behind);
        self.wakes.wake();
    }

    /// One datagram from the tunnel; `None`: a successor doesn't read the socket.
    fn read_behind(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
        meta: &mut RecvMeta,
    ) -> Option<Poll<io::Result<usize>>> {
        let mut behind = lock(&self.behind);
        if let Behind::Left(_) = &*behind
            && let Behind::Left(tunnel) = std::mem::replace(&mut *behind, Behind::Nobody)
        {
            match Tunnel::from_std(tunnel) {
                Ok(tunnel) => *behind = Behind::Open(tunnel),
                Err(error) => return Some(Poll::Ready(Err(error))),
            }
        }
        let Behind::Open(tunnel) = &*behind else { return None };
        let mut message = vec![0; HEAD + LONGEST];
        loop {
            match tunnel.poll_recv_ready(cx) {
                Poll::Pending => return Some(Poll::Pending),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Ready(Ok(())) => {}
            }
            match tunnel.try_recv(&mut message) {
                // The successor has gone, and nothing comes any more.
                Ok(0) => return Some(Poll::Pending),
                Ok(length) => {
                    if let Some((told, datagram)) = opened(&message[..length])
                        && datagram.len() <= into.len()
                    {
                        into[..datagram.len()].copy_from_slice(datagram);
                        *meta = told;
                        return Some(Poll::Ready(Ok(1)));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Some(Poll::Ready(Err(error))),
            }
        }
    }

    /// Passes on what is for predecessors' connections, of datagrams that lie one behind the other. What is left moves together.
    fn pass_on(&self, bytes: &mut [u8], meta: &mut RecvMeta) {
        let mut elders = lock(&self.elders);
        let (stride, length) = (meta.stride.max(1), meta.len);
        let (mut at, mut kept) = (0, 0);
        while at < length {
            let end = (at + stride).min(length);
            let epoch = epoch_of(&bytes[at..end]);
            let elder = elders.iter().position(|elder| Some(elder.epoch) == epoch);
            let passed =
                elder.is_some_and(|elder| match send(&elders[elder].tunnel, meta, &bytes[at..end]) {
                    Ok(()) => true,
                    // Too much at once: it is lost, as datagrams are.
                    Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => true,
                    Err(_) => {
                        elders.swap_remove(elder);
                        false
                    }
                });
            if !passed {
                bytes.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
        if elders.is_empty() && matches!(*lock(&self.behind), Behind::Nobody) {
            self.is_alone.store(true, Ordering::Release);
        }
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.io.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.wakes.register(cx.waker());
        if self.is_alone.load(Ordering::Acquire) {
            return self.io.poll_recv(cx, buffers, metas);
        }
        if let ([buffer, ..], [meta, ..]) = (&mut *buffers, &mut *metas)
            && let Some(came) = self.read_behind(cx, buffer, meta)
        {
            return came;
        }
        let came = ready!(self.io.poll_recv(cx, buffers, metas))?;
        for (buffer, meta) in buffers.iter_mut().zip(metas).take(came) {
            self.pass_on(buffer, meta);
        }
        Poll::Ready(Ok(came))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.io.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.io.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.io.may_fragment()
    }
}

fn send(tunnel: &OwnedFd, meta: &RecvMeta, datagram: &[u8]) -> nix::Result<()> {
    use std::os::fd::AsRawFd;
    let message = closed(meta, datagram);
    let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT | nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(tunnel.as_raw_fd(), &message, flags).map(drop)
}

/// A datagram with what has to be known of it.
fn closed(meta: &RecvMeta, datagram: &[u8]) -> Vec<u8> {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut message = Vec::with_capacity(HEAD + datagram.len());
    message.push(meta.ecn.map_or(0, |ecn| ecn as u8));
    message.push(u8::from(meta.dst_ip.is_some()));
    message.extend(meta.dst_ip.map_or([0; 16], mapped));
    message.extend(mapped(meta.addr.ip()));
    message.extend(meta.addr.port().to_be_bytes());
    message.extend(datagram);
    message
}

fn opened(message: &[u8]) -> Option<(RecvMeta, &[u8])> {
    let (head, datagram) = message.split_at_checked(HEAD)?;
    let ip = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = head.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
    };
    let meta = RecvMeta {
        ecn: EcnCodepoint::from_bits(head[0]),
        dst_ip: if head[1] == 1 { ip(2) } else { None },
        addr: SocketAddr::new(ip(18)?, u16::from_be_bytes([head[34], head[35]])),
        len: datagram.len(),
        stride: datagram.len(),
    };
    (!datagram.is_empty()).then_some((meta, datagram))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn short(epoch: Epoch, text: &str) -> Vec<u8> {
        [&[0x40], &epoch[..], &[7; ID_LENGTH - 4], text.as_bytes()].concat()
    }

    #[test]
    fn a_datagram_tells_whose_it_is_and_a_clients_own_choice_is_nobodys() {
        let long = |length: u8, id: &[u8]| [&[0xc0, 0, 0, 0, 1, length], id].concat();
        let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        for (datagram, epoch) in [
            (short([1, 2, 3, 4], "x"), Some([1, 2, 3, 4])),
            (long(12, &id), Some([1, 2, 3, 4])),
            (long(8, &id[..8]), None),
            (long(20, &[1; 20]), None),
            (long(12, &id[..5]), None),
            (vec![0x40, 1, 2, 3, 4], None),
            (vec![0xc0], None),
            (Vec::new(), None),
        ] {
            assert_eq!(epoch_of(&datagram), epoch, "{datagram:?}");
        }
        let drawn = Ids.generate_cid();
        assert_eq!((&drawn[..4], drawn.len()), (&EPOCH[..], Ids.cid_len()));
        assert_ne!(drawn, Ids.generate_cid());
    }

    #[test]
    fn what_is_known_of_a_datagram_goes_through_the_tunnel_with_it() {
        for (from, to) in [("192.0.2.1:443", Some("10.0.0.1")), ("[2001:db8::1]:9", None)] {
            let meta = RecvMeta {
                addr: from.parse().unwrap(),
                dst_ip: to.map(|to| to.parse().unwrap()),
                ecn: EcnCodepoint::from_bits(2),
                ..RecvMeta::default()
            };
            let message = closed(&meta, b"datagram");
            let (told, datagram) = opened(&message).unwrap();
            assert_eq!(datagram, b"datagram");
            assert_eq!((told.addr, told.dst_ip, told.ecn), (meta.addr, meta.dst_ip, meta.ecn));
            assert_eq!((told.len, told.stride), (8, 8));
        }
        assert!(opened(b"short").is_none());
    }

    /// As many as come within a moment.
    async fn receive(socket: &Steered) -> Vec<Vec<u8>> {
        let (mut bytes, mut metas) = ([[0; 4096]; 2], [RecvMeta::default(); 2]);
        let mut buffers = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
        let one = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut metas));
        let Ok(came) = tokio::time::timeout(Duration::from_secs(5), one).await else { return Vec::new() };
        let came = came.unwrap();
        let segments = |(buffer, meta): (&IoSliceMut<'_>, &RecvMeta)| {
            buffer[..meta.len].chunks(meta.stride.max(1)).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        buffers.iter().zip(&metas).take(came).flat_map(segments).collect()
    }

    #[tokio::test]
    async fn connections_stay_with_the_process_that_has_them() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let old = Steered::new(socket, Vec::new()).unwrap();
        let Share { socket, mut elders } = old.share().unwrap();
        // In one process all epochs are the same.
        let epoch = [9, 9, 9, 9];
        elders[0].epoch = epoch;
        let new = Steered::new(socket.into(), elders).unwrap();
        old.leave();

        client.send_to(&short(epoch, "old"), at).unwrap();
        client.send_to(&short(*EPOCH, "new"), at).unwrap();
        let mut came = Vec::new();
        while came.is_empty() {
            came = receive(&new).await;
        }
        assert_eq!(came, [short(*EPOCH, "new")]);
        assert_eq!(receive(&old).await, [short(epoch, "old")]);

        // When the old one has ended nobody else is to be asked.
        drop(old);
        client.send_to(&short(epoch, "late"), at).unwrap();
        assert_eq!(receive(&new).await, [short(epoch, "late")]);
        assert!(new.is_alone.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn of_datagrams_that_came_together_only_others_are_passed_on() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ours, theirs) = StdTunnel::pair().unwrap();
        let epoch = [9, 9, 9, 9];
        let new = Steered::new(socket, vec![Elder { epoch, tunnel: theirs.into() }]).unwrap();
        let (mine, other) = (short(*EPOCH, "m"), short(epoch, "o"));
        let mut bytes = [&mine[..], &other, &mine, &mine[..ID_LENGTH + 1]].concat();
        let mut meta = RecvMeta {
            addr: "192.0.2.1:443".parse().unwrap(),
            len: bytes.len(),
            stride: mine.len(),
            ..RecvMeta::default()
        };
        new.pass_on(&mut bytes, &mut meta);
        assert_eq!(bytes[..meta.len], [&mine[..], &mine, &mine[..ID_LENGTH + 1]].concat());
        let mut message = [0; 256];
        let length = ours.recv(&mut message).unwrap();
        assert_eq!(opened(&message[..length]).unwrap().1, other);
    }
}
