//! Knocking at a port, and watching from inside who got through.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt::RcvBuf,
};
use tokio::{net::TcpStream, task::JoinSet};

use super::{namespace::Namespace, station::Station, wait};

/// What came back from connection attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Knocks {
    /// A connection was made.
    pub connected: usize,
    /// A reset came back: the packet got through, to a closed port or to a program that turned it away.
    pub refused: usize,
    /// Nothing came back: dropped.
    pub silent: usize,
}

/// Tries to connect so many times at once, from inside of `namespace`. The attempts are given up after
/// `patience`; below a second each of them is one SYN.
pub fn knock(
    namespace: &Namespace,
    to: SocketAddr,
    times: usize,
    patience: Duration,
) -> anyhow::Result<Knocks> {
    Station::open(namespace)?.run(async move {
        let mut attempts = JoinSet::new();
        for _ in 0..times {
            attempts.spawn(tokio::time::timeout(patience, TcpStream::connect(to)));
        }
        let mut knocks = Knocks::default();
        while let Some(attempt) = attempts.join_next().await {
            match attempt.context("an attempt panicked")? {
                Ok(Ok(_)) => knocks.connected += 1,
                Ok(Err(why))
                    if matches!(why.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) =>
                {
                    knocks.refused += 1;
                }
                Ok(Err(why)) => return Err(why).context("an attempt failed in an odd way"),
                Err(_) => knocks.silent += 1,
            }
        }
        Ok(knocks)
    })?
}

/// Tries again and again to connect, until it works; how long that took. An attempt begins every 10 ms, whether
/// the ones before have ended or not: a SYN that is dropped stays unanswered for a second.
pub fn until_connected(namespace: &Namespace, to: SocketAddr, within: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    Station::open(namespace)?.run(async move {
        let mut attempts = JoinSet::new();
        let mut clock = tokio::time::interval(Duration::from_millis(10));
        let end = tokio::time::sleep(within);
        tokio::pin!(end);
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    attempts.spawn(tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(to)));
                }
                Some(attempt) = attempts.join_next() => {
                    if matches!(attempt, Ok(Ok(Ok(_)))) {
                        return Ok(begun.elapsed());
                    }
                }
                () = &mut end => bail!("no connection to {to} within {within:?}"),
            }
        }
    })?
}

/// Connects again and again, until nothing comes back any more; how long that took.
pub fn until_silent(namespace: &Namespace, to: SocketAddr, within: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let station = Station::open(namespace)?;
    wait::until(&format!("attempts to reach {to} stay unanswered"), within, || {
        let attempt = Instant::now();
        let connect =
            async move { tokio::time::timeout(Duration::from_millis(150), TcpStream::connect(to)).await };
        Ok(station.run(connect)?.is_err().then(|| attempt - begun))
    })
}

/// Knocks from a thread of its own until it is stopped.
#[derive(Debug)]
pub struct Knocking {
    running: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Knocks>>>,
}

impl Knocking {
    /// Twenty attempts at once, over and over.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> anyhow::Result<Self> {
        let running = Arc::new(AtomicBool::new(true));
        let (go_on, namespace) = (Arc::clone(&running), Namespace::open(namespace.name())?);
        let thread = std::thread::spawn(move || {
            let mut sum = Knocks::default();
            while go_on.load(Ordering::Acquire) {
                let more = knock(&namespace, to, 20, Duration::from_millis(200))?;
                sum.connected += more.connected;
                sum.refused += more.refused;
                sum.silent += more.silent;
            }
            Ok(sum)
        });
        Ok(Self { running, thread: Some(thread) })
    }

    pub fn stop(mut self) -> anyhow::Result<Knocks> {
        self.running.store(false, Ordering::Release);
        let thread = self.thread.take().context("stopped already")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Release);
    }
}

/// Sees every TCP packet that the namespace's network stack takes in: a raw socket gets its copy *behind* the
/// gate, right before TCP does. A SYN that it doesn't see, no program on the host can have seen.
#[derive(Debug)]
pub struct Witness {
    eyes: Arc<Eyes>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Eyes {
    v4: UdpSocket,
    v6: UdpSocket,
    syns: Mutex<HashMap<IpAddr, usize>>,
    open: AtomicBool,
}

impl Witness {
    pub fn open(namespace: &Namespace) -> anyhow::Result<Self> {
        let (v4, v6) = namespace.run(|| -> anyhow::Result<_> {
            Ok((raw_tcp(AddressFamily::Inet)?, raw_tcp(AddressFamily::Inet6)?))
        })??;
        let eyes = Arc::new(Eyes { v4, v6, syns: Mutex::default(), open: AtomicBool::new(true) });
        let watching = Arc::clone(&eyes);
        let thread = std::thread::spawn(move || {
            while watching.open.load(Ordering::Acquire) {
                // Only so that the sockets' buffers don't fill up: whoever asks looks for themselves.
                watching.look();
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Ok(Self { eyes, thread: Some(thread) })
    }

    /// How many SYNs from `source` have come through up to now.
    pub fn syns_from(&self, source: impl Into<IpAddr>) -> usize {
        self.eyes.look();
        let syns = self.eyes.syns.lock().unwrap_or_else(PoisonError::into_inner);
        syns.get(&source.into()).copied().unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.eyes.open.store(false, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Eyes {
    /// Takes in everything that waits in the sockets. When it returns, all that came before it is counted.
    fn look(&self) {
        let mut syns = self.syns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packet = [0; 128];
        for (eye, with_ip_header) in [(&self.v4, true), (&self.v6, false)] {
            while let Ok((length, from)) = eye.recv_from(&mut packet) {
                let packet = &packet[..length];
                let header = if with_ip_header { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
                // SYN without ACK, in the byte of flags.
                if packet.get(header + 13).is_some_and(|flags| flags & 0x12 == 0x02) {
                    *syns.entry(from.ip()).or_default() += 1;
                }
            }
        }
    }
}

/// A raw socket in std's clothes: for receiving with the sender's address, `UdpSocket` is all that is needed.
fn raw_tcp(family: AddressFamily) -> anyhow::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = socket(family, SockType::Raw, flags, SockProtocol::Tcp).context("can't open a raw socket")?;
    setsockopt(&raw, RcvBuf, &(4 << 20))?;
    Ok(UdpSocket::from(raw))
}
