//! What it costs to carry a connection by the name in its hello: CPU per gigabyte of the whole path (client, relay, server),
//! ours against HAProxy's with its splice options, in one run.
//!
//! Nobody here decrypts anything, so nobody encrypts anything either: the hello is a real one, what follows are plain bytes.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::lab::{Island, process::Process, wait, weir};

const SERVER: &str = "127.0.0.1:9100";
const OURS: &str = "127.0.0.1:9101";
const THEIRS: &str = "127.0.0.1:9102";
pub const NAME: &str = "legacy.example.com";

/// Carried in each measurement, over so many connections at a time.
const BYTES: u64 = 2 << 30;
/// To warm up.
const FEW_BYTES: u64 = BYTES / 8;
const AT_A_TIME: u64 = 2;

/// CPU seconds per gigabyte, the least of all rounds.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub ours: f64,
    pub haproxy: f64,
    /// Without any relay.
    pub direct: f64,
}

impl Measured {
    /// `sni_relay_cpu_per_gb_vs_haproxy`
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ours / self.haproxy
    }
}

/// Measures all of them in turn, `rounds` times.
pub fn run(rounds: usize) -> anyhow::Result<Measured> {
    let island = Island::build()?;
    let folder = island.folder();
    let listener = island.namespace.run(|| TcpListener::bind(SERVER))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks shows at its client.
            thread::spawn(move || serve(stream));
        }
    });
    let ours = start_ours(&island, folder)?;
    let haproxy = start_haproxy(&island, folder)?;
    for at in [OURS, THEIRS] {
        wait::until_true("it listens", Duration::from_secs(10), || {
            Ok(island.namespace.run(|| TcpStream::connect(at))?.is_ok())
        })?;
    }
    let mut measured = Measured { ours: f64::MAX, haproxy: f64::MAX, direct: f64::MAX };
    // The first round warms up.
    for round in 0..=rounds {
        for (at, process, least) in [
            (OURS, Some(&ours), &mut measured.ours),
            (THEIRS, Some(&haproxy), &mut measured.haproxy),
            (SERVER, None, &mut measured.direct),
        ] {
            let bytes = if round == 0 { FEW_BYTES } else { BYTES };
            let cost = measure(&island, at, process, bytes)?;
            if round > 0 {
                *least = least.min(cost);
            }
        }
    }
    Ok(measured)
}

fn measure(island: &Island, at: &str, relay: Option<&Process>, bytes: u64) -> anyhow::Result<f64> {
    let cpu = || -> anyhow::Result<Duration> {
        let own = getrusage(UsageWho::RUSAGE_SELF)?;
        let own = [own.user_time(), own.system_time()].map(|time| {
            Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
        });
        let its = relay.map_or(Ok(Duration::ZERO), Process::cpu)?;
        Ok(own[0] + own[1] + its)
    };
    let before = cpu()?;
    let each = bytes / AT_A_TIME;
    let downloads: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let stream = island.namespace.run(|| TcpStream::connect(at))??;
            Ok(thread::spawn(move || download(stream, each)))
        })
        .collect::<anyhow::Result<_>>()?;
    for one in downloads {
        one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok((cpu()? - before).as_secs_f64() / (bytes as f64 / 1e9))
}

fn download(mut stream: TcpStream, bytes: u64) -> anyhow::Result<()> {
    stream.write_all(&hello(NAME)?)?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "it ended {left} bytes early");
        left = left.saturating_sub(read as u64);
    }
    Ok(())
}

/// Reads a hello and a number, and sends so many bytes.
fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut rest)?;
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = u64::from_be_bytes(wanted);
    let bytes = vec![7; 256 * 1024];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        stream.write_all(&bytes[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// A client's hello, in one record.
pub fn hello(name: &'static str) -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

fn start_ours(island: &Island, folder: &Path) -> anyhow::Result<Process> {
    let file = folder.join("weir.toml");
    let socket = folder.join("admin.sock");
    fs::write(
        &file,
        format!(
            "[kernel]\nmode = \"off\"\ncgroup = \"off\"\n[admin]\nbind = \"unix:{}\"\n[state]\ndir = \"{}\"\n\
             [log]\naccess = \"{}\"\n[entrypoint.tls]\nbind = \"{OURS}\"\nprotocol = \"tcp\"\n\
             [service.old]\nservers = \"{SERVER}\"\noffload = \"off\"\n\
             [[route]]\nsni = \"{NAME}\"\npassthrough = \"old\"\n",
            socket.display(),
            folder.display(),
            folder.join("access.log").display()
        ),
    )?;
    let mut command = island.namespace.command(weir::program()?)?;
    command.arg("run").arg(&file);
    Process::start("weir", command, &folder.join("weir.log"))
}

fn start_haproxy(island: &Island, folder: &Path) -> anyhow::Result<Process> {
    let file = folder.join("haproxy.cfg");
    fs::write(
        &file,
        format!(
            "global\n  maxconn 1000\n  nbthread 2\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\n  option splice-auto\n  option splice-request\n  option splice-response\n\
             frontend tls\n  bind {THEIRS}\n  tcp-request inspect-delay 5s\n  \
             tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
             use_backend old if {{ req.ssl_sni -i {NAME} }}\nbackend old\n  server one {SERVER}\n"
        ),
    )?;
    let mut command = island.namespace.command("haproxy")?;
    command.arg("-db").arg("-f").arg(&file);
    Process::start("haproxy", command, &folder.join("haproxy.log")).context("HAProxy is a peer")
}
