//! Bytes that go both ways at once and are checked one by one: for whatever carries connections untouched.
//!
//! A client says how much it will send and how much it wants; both then send what follows from a seed, close their side when
//! they are done, and check what comes. The server says last whether all was right, and from where it saw the client.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use super::namespace::Namespace;

/// How long either side waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a server looks whether it is still wanted.
const LOOK_EVERY: i64 = 100_000;
const PIECE: usize = 32 * 1024;
const SOUND: u8 = 1;
/// Verdict, family, address, port.
const REPORT: usize = 1 + 1 + 16 + 2;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Exchange {
    pub addr: SocketAddr,
    wanted: Arc<AtomicBool>,
    /// Connections, or datagrams.
    served: Arc<AtomicU64>,
}

/// What the server says of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// As the server saw the client.
    pub client: SocketAddr,
}

impl Exchange {
    /// Over TCP.
    pub fn serve(namespace: &Namespace, addr: SocketAddr) -> anyhow::Result<Self> {
        let listener =
            namespace.run(|| TcpListener::bind(addr))?.with_context(|| format!("can't listen on {addr}"))?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::new(0, LOOK_EVERY))?;
        let exchange = Self::new(addr);
        let (wanted, served) = (exchange.wanted.clone(), exchange.served.clone());
        thread::spawn(move || {
            while wanted.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else { continue };
                served.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    // What went wrong is the client's to tell.
                    let _ = serve_one(&stream);
                });
            }
        });
        Ok(exchange)
    }

    /// Over UDP: each datagram comes back with its receiver's and its sender's address behind it.
    pub fn serve_datagrams(namespace: &Namespace, addr: SocketAddr) -> anyhow::Result<Self> {
        let socket =
            namespace.run(|| UdpSocket::bind(addr))?.with_context(|| format!("can't bind {addr}"))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, LOOK_EVERY))?;
        let exchange = Self::new(addr);
        let (wanted, served) = (exchange.wanted.clone(), exchange.served.clone());
        thread::spawn(move || {
            let mut datagram = vec![0; 1 << 16];
            while wanted.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                served.fetch_add(1, Ordering::Relaxed);
                let mut answer = datagram[..length].to_vec();
                answer.extend(report(true, from));
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(exchange)
    }

    fn new(addr: SocketAddr) -> Self {
        Self { addr, wanted: Arc::new(AtomicBool::new(true)), served: Arc::default() }
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

/// Sends `up` bytes and takes `down` bytes at the same time, and has all of them checked. To be called inside of the
/// client's namespace.
pub fn exchange(to: SocketAddr, seed: u64, up: u64, down: u64) -> anyhow::Result<Seen> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("can't reach {to}"))?;
    exchange_over(&stream, seed, up, down)
}

/// Over a connection that is there.
pub fn exchange_over(stream: &TcpStream, seed: u64, up: u64, down: u64) -> anyhow::Result<Seen> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    [seed, up, down].iter().for_each(|number| head.extend(number.to_be_bytes()));
    (&*stream).write_all(&head).context("can't say what is wanted")?;
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| -> anyhow::Result<()> {
            send(stream, seed, up)?;
            stream.shutdown(Shutdown::Write).context("can't close")
        });
        let taken = take(stream, !seed, down);
        let sent = sending.join().unwrap_or_else(|_| bail!("the sender panicked"));
        taken.context("from the server")?;
        sent.context("to the server")
    });
    sent?;
    let mut said = [0; REPORT];
    (&*stream).read_exact(&mut said).context("no verdict")?;
    let (sound, client) = read_report(&said)?;
    ensure!(sound, "the server got other bytes than were sent");
    ensure!((&*stream).read(&mut [0])? == 0, "something comes behind the end");
    Ok(Seen { client })
}

/// Sends a datagram and waits for it to come back, once. To be called inside of the client's namespace.
pub fn echo(socket: &UdpSocket, seed: u64, length: usize) -> anyhow::Result<SocketAddr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = Stream::of(seed);
    let mut datagram = vec![0; length];
    stream.fill(&mut datagram);
    socket.send(&datagram).context("can't send")?;
    let mut answer = vec![0; 1 << 16];
    let got = socket.recv(&mut answer).context("nothing comes back")?;
    ensure!(got == length + REPORT, "{got} bytes came back of {length}");
    ensure!(answer[..length] == datagram, "other bytes come back");
    Ok(read_report(&answer[length..got])?.1)
}

fn serve_one(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut head = [0; 24];
    (&*stream).read_exact(&mut head)?;
    let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (seed, up, down) = (number(0), number(8), number(16));
    let sound = thread::scope(|scope| -> anyhow::Result<bool> {
        let sending = scope.spawn(|| send(stream, !seed, down));
        let taken = take(stream, seed, up);
        let ended = taken.is_ok() && matches!((&*stream).read(&mut [0]), Ok(0));
        sending.join().unwrap_or_else(|_| bail!("the sender panicked"))?;
        Ok(ended)
    })?;
    (&*stream).write_all(&report(sound, peer))?;
    Ok(())
}

fn send(mut stream: &TcpStream, seed: u64, mut left: u64) -> anyhow::Result<()> {
    let mut bytes = Stream::of(seed);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        bytes.fill(&mut piece[..length]);
        stream.write_all(&piece[..length])?;
        left -= length as u64;
    }
    Ok(())
}

fn take(mut stream: &TcpStream, seed: u64, mut left: u64) -> anyhow::Result<()> {
    let mut bytes = Stream::of(seed);
    let (mut piece, mut wanted) = (vec![0; PIECE], vec![0; PIECE]);
    while left > 0 {
        let most = left.min(PIECE as u64) as usize;
        let length = match stream.read(&mut piece[..most]) {
            Ok(0) => bail!("the connection ended with {left} bytes missing"),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("with {left} bytes missing")),
        };
        bytes.fill(&mut wanted[..length]);
        ensure!(piece[..length] == wanted[..length], "other bytes than were sent, {left} from the end");
        left -= length as u64;
    }
    Ok(())
}

fn report(sound: bool, peer: SocketAddr) -> Vec<u8> {
    let mut report = vec![if sound { SOUND } else { 0 }, if peer.is_ipv4() { 4 } else { 6 }];
    report.extend(match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    });
    report.extend(peer.port().to_be_bytes());
    report
}

fn read_report(said: &[u8]) -> anyhow::Result<(bool, SocketAddr)> {
    let octets: [u8; 16] = said.get(2..18).and_then(|ip| ip.try_into().ok()).context("half a verdict")?;
    let port = u16::from_be_bytes([said[18], said[19]]);
    Ok((said[0] == SOUND, SocketAddr::new(IpAddr::from(octets).to_canonical(), port)))
}

/// Bytes that follow from a seed, whatever the pieces in which they are made. They repeat after a length that no segment and
/// no buffer has a multiple of.
struct Stream {
    pattern: Vec<u8>,
    at: usize,
}

/// A prime.
const PERIOD: usize = 65_521;

impl Stream {
    fn of(seed: u64) -> Self {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        };
        let mut pattern: Vec<u8> = (0..PERIOD.div_ceil(8)).flat_map(|_| next()).collect();
        pattern.truncate(PERIOD);
        Self { pattern, at: 0 }
    }

    fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let length = bytes.len().min(PERIOD - self.at);
            let (now, rest) = bytes.split_at_mut(length);
            now.copy_from_slice(&self.pattern[self.at..self.at + length]);
            self.at = (self.at + length) % PERIOD;
            bytes = rest;
        }
    }
}
