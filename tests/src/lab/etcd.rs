//! An etcd of one member, and a relay before it that can be cut.

use std::{
    fmt::Display,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use tokio::{net, sync::Notify};

use super::{process::Process, wait};

/// A start recovers what was written; a disk that is busy takes its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Debian's etcd, on loopback. What it holds outlives [`Etcd::stop`].
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    folder: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    arguments: Vec<String>,
}

impl Etcd {
    /// Starts one that keeps its data in `folder`. `arguments` are added to its own.
    pub fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (client, peer) = (free()?, free()?);
        let mut etcd = Self { process: None, folder: folder.to_owned(), client, peer, arguments };
        etcd.go_on()?;
        Ok(etcd)
    }

    /// Where clients are answered.
    pub fn addr(&self) -> SocketAddr {
        self.client
    }

    /// CPU time that it has used since it was started.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.process.as_ref().context("it doesn't run")?.cpu()
    }

    /// The most memory that it had, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.process.as_ref().context("it doesn't run")?.memory("VmHWM")
    }

    /// SIGKILL: as a host that loses power, but for the disk's own cache.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again, with what it had.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("etcd");
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes one plain system call, and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let tls = self.arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        let client = format!("{}://{}", if tls { "https" } else { "http" }, self.client);
        let peer = format!("http://{}", self.peer);
        command
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", "lab", "--log-level", "error", "--data-dir"])
            .arg(self.folder.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("lab={peer}")])
            .args(&self.arguments);
        let mut process = Process::start("etcd", command, &self.folder.join("etcd.log"))?;
        let addr = self.client;
        wait::until_true("etcd takes connections", PATIENCE, || {
            anyhow::ensure!(process.ended()?.is_none(), "etcd ended at once:\n{}", process.log_text());
            Ok(TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }
}

/// Runs `etcdctl` against one, and gives back what it says.
pub fn etcdctl(endpoint: impl Display, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}")).args(arguments);
    let output = command.output().context("can't run etcdctl")?;
    anyhow::ensure!(output.status.success(), "etcdctl {arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port of loopback that nobody has.
pub fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

/// A TCP relay. Cut, it carries nothing and says nothing, as a network does that fell apart; or it resets.
#[derive(Debug, Clone)]
pub struct Relay {
    pub addr: SocketAddr,
    state: Arc<Cut>,
}

#[derive(Debug, Default)]
struct Cut {
    /// Bytes are held back.
    silent: AtomicBool,
    /// Connections are refused.
    refused: AtomicBool,
    changed: Notify,
}

impl Relay {
    /// Carries connections to `to`, on the runtime that it is called in.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let relay = Self { addr: listener.local_addr()?, state: Arc::default() };
        let state = relay.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !state.refused.load(Ordering::Relaxed) {
                    tokio::spawn(carry(client, to, state.clone()));
                }
            }
        });
        Ok(relay)
    }

    /// From now on nothing comes through, and nobody is told.
    pub fn fall_silent(&self) {
        self.state.silent.store(true, Ordering::Relaxed);
        self.state.changed.notify_waiters();
    }

    /// Every connection breaks, and no new one is made.
    pub fn refuse(&self) {
        self.state.refused.store(true, Ordering::Relaxed);
        self.state.changed.notify_waiters();
    }

    pub fn heal(&self) {
        self.state.silent.store(false, Ordering::Relaxed);
        self.state.refused.store(false, Ordering::Relaxed);
        self.state.changed.notify_waiters();
    }
}

async fn carry(mut client: net::TcpStream, to: SocketAddr, state: Arc<Cut>) {
    let Ok(mut server) = net::TcpStream::connect(to).await else { return };
    loop {
        let changed = state.changed.notified();
        if state.refused.load(Ordering::Relaxed) {
            return;
        }
        if state.silent.load(Ordering::Relaxed) {
            // What was on its way is lost with it: when the network is back, both ends have given it up.
            changed.await;
            if !state.silent.load(Ordering::Relaxed) {
                return;
            }
            continue;
        }
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            () = changed => {}
        }
    }
}
