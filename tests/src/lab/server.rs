//! An upstream server as a process of its own, so that it can really be killed, and really hang.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::{
    Lab,
    addresses::{EDGE_INSIDE, ONE, SERVER_PORT, SERVER_TLS_PORT, TWO},
    client::Browser,
    ip,
    namespace::Namespace,
    process::Process,
};
use crate::upstream::Mood;

/// `weir-lab upstream`, with a name that it puts into every answer.
#[derive(Debug)]
pub struct Server {
    which: Which,
    process: Process,
}

/// Which of the two machines of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    One,
    Two,
}

impl Which {
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }

    pub fn address(self) -> IpAddr {
        match self {
            Self::One => ONE.into(),
            Self::Two => TWO.into(),
        }
    }

    fn namespace(self, lab: &Lab) -> &Namespace {
        match self {
            Self::One => &lab.one,
            Self::Two => &lab.two,
        }
    }
}

impl Server {
    /// Starts a server; it accepts when this returns.
    pub fn start(lab: &Lab, which: Which) -> anyhow::Result<Self> {
        Self::start_in(lab, which, Mood::Fine)
    }

    /// Starts a server that treats whoever asks so from its first moment.
    pub fn start_in(lab: &Lab, which: Which, mood: Mood) -> anyhow::Result<Self> {
        let folder = lab.folder().join("server");
        let mut command = which.namespace(lab).command(program()?)?;
        command
            .args(["upstream", "--name", which.name()])
            .args(["--listen", &SocketAddr::new(which.address(), SERVER_PORT).to_string()])
            .args(["--listen-tls", &SocketAddr::new(which.address(), SERVER_TLS_PORT).to_string()])
            .arg("--certificate")
            .arg(folder.join("server.crt"))
            .arg("--key")
            .arg(folder.join("server.key"))
            .arg("--orders")
            .arg(Self::orders(lab))
            .args(["--mood", mood.name()]);
        let log = lab.folder().join(format!("server-{}.log", which.name()));
        let title = format!("server {}", which.name());
        let process = Process::start_and_wait_for_a_line(&title, command, &log, Duration::from_secs(5))?;
        Ok(Self { which, process })
    }

    /// Where all servers of a lab note the orders that they get: each id on a line.
    pub fn orders(lab: &Lab) -> PathBuf {
        lab.folder().join("orders")
    }

    pub fn name(&self) -> &'static str {
        self.which.name()
    }

    /// Changes how it treats whoever asks.
    pub fn be(&self, lab: &Lab, mood: Mood) -> anyhow::Result<()> {
        let browser = Browser::plain(self.which.namespace(lab), self.address())?;
        let reply = browser.get(&format!("/mood/{}", mood.name()))?;
        ensure!(reply.status == 200, "the server answers {}", reply.status);
        Ok(())
    }

    /// Drops what it sends to the edge: nobody hears of it any more, not even that a connection is closed.
    pub fn vanish(&self, lab: &Lab) -> anyhow::Result<()> {
        let namespace = self.which.namespace(lab).name();
        ip(&["-n", namespace, "-batch", "-"], &format!("route replace blackhole {EDGE_INSIDE}/32\n"))
    }

    /// After [`Self::vanish`].
    pub fn appear(&self, lab: &Lab) -> anyhow::Result<()> {
        let namespace = self.which.namespace(lab).name();
        ip(&["-n", namespace, "-batch", "-"], &format!("route replace {EDGE_INSIDE}/32 dev edge\n"))
    }

    /// Where it serves plain HTTP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.which.address(), SERVER_PORT)
    }

    /// SIGKILL: from here on the kernel refuses connections, and resets those that were open.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// After [`Self::kill`].
    pub fn start_again(&mut self, lab: &Lab) -> anyhow::Result<()> {
        *self = Self::start(lab, self.which)?;
        Ok(())
    }

    /// After [`Self::kill`]: it answers as its mood is.
    pub fn start_again_in(&mut self, lab: &Lab, mood: Mood) -> anyhow::Result<()> {
        *self = Self::start_in(lab, self.which, mood)?;
        Ok(())
    }

    /// SIGSTOP: the kernel still accepts and acknowledges, and nobody answers.
    pub fn hang(&self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGCONT)
    }
}

/// The `weir-lab` binary: this process's own, or beside the test's.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("can't tell which program this is")?;
    if own.file_stem().is_some_and(|stem| stem == "weir-lab") {
        return Ok(own);
    }
    let beside =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("weir-lab")).find(|path| path.is_file());
    beside.with_context(|| {
        format!("no `weir-lab` beside {}: build it with `cargo build -p weir-lab`", own.display())
    })
}
