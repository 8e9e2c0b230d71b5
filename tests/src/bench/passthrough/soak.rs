//! Many connections a second, for minutes: none may fail, none may wait because a port was used again too early, and the kernel's
//! table must be empty again afterwards. Half of them their clients close first; the other half their servers do, and remember
//! them for a minute.

use std::{
    fmt,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
    },
};
use serde_json::{Map, Value};

use super::stage::{CLIENTS, Stage};
use crate::lab::{namespace::Namespace, wait};

const THREADS: u32 = 8;
/// Each has one connection at a time.
const SERVING: usize = 16;
/// The queue of connections that no thread has yet.
const QUEUE: i32 = 4096;
/// What a client says: which of both is to close first.
const I_CLOSE: u8 = b'C';
const YOU_CLOSE: u8 = b'S';
const PATIENCE: Duration = Duration::from_secs(20);
/// Ports of finished flows are free after a second or two, and those that a server closed first after a minute.
const EMPTY_WITHIN: Duration = Duration::from_secs(90);

#[derive(Debug, Default, Clone)]
pub struct Soaked {
    pub made: u64,
    pub failed: u64,
    /// Connections whose first packet had to be sent again.
    pub late: u64,
    pub seconds: f64,
    pub left: u64,
    /// Some of those, as `weir flows` tells of them.
    pub leftovers: Vec<Value>,
    /// Why the first one failed.
    pub first: Option<String>,
}

pub fn run(stage: &Stage, per_second: u32, time: Duration) -> anyhow::Result<Soaked> {
    let to = Stage::many_at();
    let begun = Instant::now();
    let each = per_second.div_ceil(THREADS);
    let results: Vec<Soaked> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|nth| scope.spawn(move || stage.lab.internet.run(|| one_thread(nth, to, each, time))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect::<anyhow::Result<_>>()
    })?;
    let mut all = Soaked { seconds: begun.elapsed().as_secs_f64(), ..Soaked::default() };
    for one in results {
        all.made += one.made;
        all.failed += one.failed;
        all.late += one.late;
        all.first = all.first.or(one.first);
    }
    let left = || stage.weir.admin().get("/api/v1/flows?most=5")?.json();
    if wait::until_true("the table is empty", EMPTY_WITHIN, || Ok(left()?["all"] == 0)).is_err() {
        let mut left = left()?;
        all.left = left["all"].as_u64().context("no number of flows")?;
        all.leftovers = left["flows"].as_array_mut().map(std::mem::take).unwrap_or_default();
    }
    Ok(all)
}

fn one_thread(nth: u32, to: SocketAddr, per_second: u32, time: Duration) -> Soaked {
    let (begun, mut soaked) = (Instant::now(), Soaked::default());
    let pause = Duration::from_secs(1) / per_second.max(1);
    let mut due = begun;
    while begun.elapsed() < time {
        let now = Instant::now();
        if now < due {
            thread::sleep(due - now);
        }
        due += pause;
        let client = 100 + ((soaked.made as u32 * THREADS + nth) % u32::from(CLIENTS)) as u8;
        // Each client does either in turn.
        let first = if (soaked.made / 4).is_multiple_of(2) { I_CLOSE } else { YOU_CLOSE };
        match ping(Ipv4Addr::new(198, 51, 100, client), to, first) {
            Ok(was_sent_again) => {
                soaked.made += 1;
                soaked.late += u64::from(was_sent_again);
            }
            Err(why) => {
                soaked.failed += 1;
                soaked.first.get_or_insert_with(|| format!("{why:#}"));
            }
        }
    }
    soaked
}

/// From an address to another, one byte there and back; says whether the first packet had to be sent again.
fn ping(from: Ipv4Addr, to: SocketAddr, first: u8) -> anyhow::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The port is chosen when it is known where to: then one may be used for many.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    let SocketAddr::V4(to) = to else { bail!("the client has IPv4 only") };
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).context("can't connect")?;
    let was_sent_again = sent_again(&socket)? > 0;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[first])?;
    stream.read_exact(&mut [0]).context("no answer")?;
    if first == YOU_CLOSE {
        ensure!(stream.read(&mut [0]).context("no end")? == 0, "more than one byte came");
    }
    Ok(was_sent_again)
}

/// Packets of a connection that had to be sent again. A server that still remembers the port doesn't answer a SYN as it should, and
/// gets another one after a second.
fn sent_again(socket: &impl AsRawFd) -> std::io::Result<u32> {
    // SAFETY: integers only, of which zeros are good.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes no more than there is room for, as the length says, and any numbers are good.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(info.tcpi_total_retrans) }
}

/// Answers each with the byte that it sent, as long as the process lives.
pub fn serve(namespace: &Namespace, addr: SocketAddr) -> anyhow::Result<()> {
    let listener = namespace.run(|| {
        std::fs::write("/proc/sys/net/core/somaxconn", QUEUE.to_string())?;
        let listener = TcpListener::bind(addr)?;
        // Once more, with a longer queue.
        nix::sys::socket::listen(&listener, Backlog::new(QUEUE)?)?;
        anyhow::Ok(listener)
    })??;
    for _ in 0..SERVING {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // What breaks shows at its client.
                let _ = answer(stream);
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    if byte == [I_CLOSE] {
        let _ = stream.read(&mut byte)?;
    }
    Ok(())
}

impl Soaked {
    pub fn tell(&self, figures: &mut Map<String, Value>) {
        figures.insert("connections_per_second".to_owned(), super::rounded(self.made as f64 / self.seconds));
        figures.insert("connections_made".to_owned(), self.made.into());
        figures.insert("connections_failed".to_owned(), self.failed.into());
        figures.insert("ports_reused_too_early".to_owned(), self.late.into());
        figures.insert("flows_left".to_owned(), self.left.into());
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, failed, late, seconds, left, leftovers, first } = self;
        write!(
            f,
            "{made} connections in {seconds:.0} s ({:.0} a second): {failed} failed, {late} first packets sent again, as to a port that \
             was used too early, {left} flows left",
            *made as f64 / seconds
        )?;
        if !leftovers.is_empty() {
            write!(f, ", as {}", Value::from(leftovers.clone()))?;
        }
        match first {
            Some(why) => write!(f, "; the first failure: {why}"),
            None => Ok(()),
        }
    }
}
