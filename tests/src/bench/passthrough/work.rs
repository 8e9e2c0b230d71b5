//! What is sent, and what it costs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};

use super::stage::Way;
use crate::lab::{namespace::Namespace, process::cpu_of};

const PIECE: usize = 128 * 1024;
/// Of bulk, in a round.
const BULK: u64 = 1 << 30;
const CONNECTIONS: u32 = 3000;
const ROUND_TRIPS: u32 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// What a TLS record of a hello begins with.
const HANDSHAKE: u8 = 22;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Seconds of CPU for each GB from the server.
    Down,
    /// And to the server.
    Up,
    /// µs of CPU for each connection: one byte to the server, one back.
    Connections,
    /// The median round trip of one byte, in µs.
    PingPong,
}

impl Work {
    pub const ALL: [Self; 4] = [Self::Down, Self::Up, Self::Connections, Self::PingPong];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "cpu_s_per_gb_down",
            Self::Up => "cpu_s_per_gb_up",
            Self::Connections => "cpu_us_per_connection",
            Self::PingPong => "rtt_p50_us",
        }
    }

    /// Does it from a namespace, and says what it cost.
    pub fn measure(
        self,
        client: &Namespace,
        to: SocketAddr,
        hello: &[u8],
        proxy: Option<u32>,
        short: bool,
    ) -> anyhow::Result<f64> {
        let part = if short { 10 } else { 1 };
        let before = cpu(proxy)?;
        let used = || -> anyhow::Result<f64> { Ok((cpu(proxy)? - before).as_secs_f64()) };
        match self {
            Self::Down | Self::Up => {
                let bytes = BULK / part;
                client.run(|| bulk(to, hello, self == Self::Up, bytes))??;
                Ok(used()? / (bytes as f64 / 1e9))
            }
            Self::Connections => {
                let count = CONNECTIONS / part as u32;
                client.run(|| (0..count).try_for_each(|_| ping(to)))??;
                Ok(used()? * 1e6 / f64::from(count))
            }
            Self::PingPong => client.run(|| ping_pong(to, ROUND_TRIPS / part as u32))?,
        }
    }
}

/// Of this process, in which client and server are, and of the proxy.
fn cpu(proxy: Option<u32>) -> anyhow::Result<Duration> {
    let own = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec().unsigned_abs())
            + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    let own = time(own.user_time()) + time(own.system_time());
    Ok(own + proxy.map(cpu_of).transpose()?.unwrap_or_default())
}

/// What a client begins with: a TLS hello, if it is known by one; what it wants, and how much of it.
fn ask(stream: &TcpStream, hello: &[u8], what: u8, bytes: u64) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = hello.to_vec();
    head.push(what);
    head.extend(bytes.to_be_bytes());
    let mut stream = stream;
    stream.write_all(&head).context("can't ask")?;
    if !hello.is_empty() {
        // As in every handshake, nothing follows a hello before its answer.
        stream.read_exact(&mut [0]).context("no answer to the hello")?;
    }
    Ok(())
}

fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("can't reach {to}"))
}

fn bulk(to: SocketAddr, hello: &[u8], up: bool, bytes: u64) -> anyhow::Result<()> {
    let mut stream = connect(to)?;
    ask(&stream, hello, if up { b'U' } else { b'D' }, bytes)?;
    if up {
        give(&mut stream, bytes)?;
        stream.read_exact(&mut [0]).context("the server didn't take all")?;
        return Ok(());
    }
    ensure!(swallow(&mut stream, bytes)? == bytes, "the server gave less");
    Ok(())
}

fn ping(to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = connect(to)?;
    ask(&stream, b"", b'P', 0)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0]).context("no answer")?;
    Ok(())
}

fn ping_pong(to: SocketAddr, count: u32) -> anyhow::Result<f64> {
    let mut stream = connect(to)?;
    ask(&stream, b"", b'P', 0)?;
    let mut took = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let begun = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1e6)
}

/// Serves what clients ask for, as long as the process lives.
pub fn serve(namespace: &Namespace, addr: SocketAddr) -> anyhow::Result<()> {
    let listener =
        namespace.run(|| TcpListener::bind(addr))?.with_context(|| format!("can't listen on {addr}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    if head[0] == HANDSHAKE {
        // A hello, which nobody answers here: what follows are plain bytes.
        let rest = 5 + usize::from(u16::from_be_bytes([head[3], head[4]])) - head.len();
        stream.read_exact(&mut vec![0; rest])?;
        stream.read_exact(&mut head)?;
        stream.write_all(&[HANDSHAKE])?;
    }
    let bytes = u64::from_be_bytes(head[1..].try_into()?);
    match head[0] {
        b'D' => give(&mut stream, bytes)?,
        b'U' => {
            swallow(&mut stream, bytes)?;
            stream.write_all(b"x")?;
        }
        _ => {
            let mut byte = [0];
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
        }
    }
    Ok(())
}

fn give(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<()> {
    let piece = vec![0x5a; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        stream.write_all(&piece[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Takes so many bytes, or what there is.
fn swallow(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut taken = 0;
    while taken < bytes {
        let most = (bytes - taken).min(PIECE as u64) as usize;
        match stream.read(&mut piece[..most])? {
            0 => break,
            length => taken += length as u64,
        }
    }
    Ok(taken)
}

impl Way {
    /// How results call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::Kernel => "weir_kernel",
            Self::HaProxy => "haproxy",
            Self::Named => "weir_named",
        }
    }
}
