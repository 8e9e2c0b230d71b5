//! Several daemons on loopback that have their configuration from one etcd: no kernel side, no namespaces, no root.
//!
//! What is served tells which generation runs: the documents give a header, and the server behind all hosts says "ok".

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use proxy_user::store::{address::StoreAddress, etcd::Session, layout};
use serde_json::Value;

use super::{
    etcd::{Etcd, free},
    process::Process,
    wait,
    weir::{self, Ran},
};

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The name that is asked for.
pub const SITE: &str = "shop.example.com";

// Dropped from top to bottom: the folder goes last.
#[derive(Debug)]
pub struct FleetLab {
    pub hosts: Vec<FleetHost>,
    pub etcd: Etcd,
    /// The server behind all hosts.
    pub server: SocketAddr,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
pub struct FleetHost {
    pub name: String,
    process: Option<Process>,
    pub folder: PathBuf,
    /// Where it takes requests.
    pub addr: SocketAddr,
}

/// It did what it was told.
pub fn fine(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// It did not, and said so.
pub fn failed(ran: &Ran, code: i32, sentence: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains(sentence), "{sentence:?} isn't in {ran:?}");
}

impl FleetLab {
    /// An etcd, a server, and so many hosts that wait for their first generation.
    pub fn up(hosts: usize) -> anyhow::Result<Self> {
        Self::up_with(hosts, |_, _| Ok(String::new()))
    }

    /// Likewise, with more at the end of each host's own file, which begins within its `[fleet]`. It is told the host and the lab's folder.
    pub fn up_with(
        hosts: usize,
        more: impl Fn(&FleetHost, &Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let etcd = Etcd::start(folder.path(), &[])?;
        let mut lab = Self { hosts: Vec::new(), etcd, server: serve("200 OK")?, folder };
        let root = lab.folder.path().to_owned();
        for _ in 0..hosts {
            let host = lab.add()?;
            fs::write(host.config(), fs::read_to_string(host.config())? + &more(host, &root)?)?;
            host.begin()?;
        }
        for host in &lab.hosts {
            host.until_it_answers()?;
        }
        Ok(lab)
    }

    /// One host more, which doesn't run yet.
    pub fn add(&mut self) -> anyhow::Result<&mut FleetHost> {
        let name = format!("edge-{}", self.hosts.len() + 1);
        let folder = self.folder.path().join(&name);
        fs::create_dir(&folder)?;
        let host = FleetHost { name, process: None, folder, addr: free()? };
        fs::write(host.config(), host.text(self.etcd.addr()))?;
        self.hosts.push(host);
        self.hosts.last_mut().context("it has just been added")
    }

    /// How the store is written on a command line.
    pub fn store(&self) -> String {
        format!("etcd://{}/weir", self.etcd.addr())
    }

    /// How the store is reached by the hosts' own code.
    pub fn address(&self) -> StoreAddress {
        let endpoints = vec![self.etcd.addr().to_string()];
        StoreAddress { endpoints, prefix: "/weir/".into(), tls: None, login: None }
    }

    /// Writes a folder of documents that say `generation` in a header; `more` is added to them.
    pub fn documents(&self, generation: &str, more: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join("documents");
        fs::create_dir_all(folder.join("sites"))?;
        let server = self.server;
        fs::write(
            folder.join("services.toml"),
            format!(
                "[service.app]\nservers = [\"{server}\"]\n\n[middleware.stamp.headers]\nresponse = {{ set = {{ X-Generation = \"{generation}\" }} }}\n"
            ),
        )?;
        let route =
            format!("[[route]]\nhost = \"{SITE}\"\nservice = \"app\"\nmiddleware = [\"stamp\"]\n\n{more}");
        fs::write(folder.join("sites/shop.toml"), route)?;
        Ok(folder)
    }

    /// Runs `weir` to its end; `--to` comes by itself.
    pub fn weir(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut command = Command::new(weir::program()?);
        command.args(arguments).env("WEIR_STORE", self.store()).env("NO_COLOR", "1");
        weir::finish_within(command, PATIENCE * 3)
    }

    /// `weir push` of documents that say `generation`, with `arguments`.
    pub fn push(&self, generation: &str, arguments: &[&str]) -> anyhow::Result<Ran> {
        let folder = self.documents(generation, "")?;
        let folder = folder.display().to_string();
        self.weir(&[&["push", folder.as_str()], arguments].concat())
    }

    /// `weir fleet status --json`
    pub fn status(&self) -> anyhow::Result<Value> {
        let ran = self.weir(&["fleet", "status", "--json"])?;
        serde_json::from_str(&ran.stdout).with_context(|| format!("{ran:?}"))
    }

    /// When the one who pushed a generation decided on it.
    pub fn decided(&self, generation: u64) -> anyhow::Result<Timestamp> {
        let address = self.address();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(async {
            let session = Session::open(&address, 0).await?;
            session.get(&layout::generation_key(generation)).await
        })?;
        let bytes = found.found.with_context(|| format!("generation {generation} isn't in the store"))?.bytes;
        let stored = layout::Generation::read(generation, &bytes).map_err(anyhow::Error::msg)?;
        Ok(Timestamp::from_millisecond(stored.at)?)
    }

    /// Waits until each host serves the generation that is said for it.
    pub fn until_served(&self, generations: &[&str]) -> anyhow::Result<()> {
        for (host, generation) in self.hosts.iter().zip(generations) {
            let what = format!("{} serves generation {generation}", host.name);
            wait::until_true(&what, PATIENCE, || Ok(host.served().as_deref() == Some(*generation)))
                .with_context(|| host.log())?;
        }
        Ok(())
    }
}

impl FleetHost {
    /// Its own configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("weir.toml")
    }

    fn text(&self, etcd: SocketAddr) -> String {
        let Self { name, folder, addr, .. } = self;
        let folder = folder.display();
        format!(
            r#"[kernel]
mode = "off"

[admin]
bind = ["unix:{folder}/admin.sock"]

[state]
dir = "{folder}/state"

[log]
access = "off"

[provider.store]
kind = "etcd"
endpoints = ["{etcd}"]
prefix = "/weir/"

[entrypoint.http]
bind = ["{addr}"]

[fleet]
store = "store"
host = "{name}"
"#
        )
    }

    /// Starts its daemon, and doesn't wait for it.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(weir::program()?);
        command.process_group(0).arg("run").arg(self.config()).args(["--workers", "1"]).env("NO_COLOR", "1");
        // SAFETY: between fork and exec the closure makes one plain system call, and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        self.process = Some(Process::start(&self.name, command, &self.folder.join("log"))?);
        Ok(())
    }

    /// Runs `weir` for its daemon.
    pub fn weir(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut command = Command::new(weir::program()?);
        let socket = self.folder.join("admin.sock");
        command.args(arguments).env("WEIR_ADMIN", format!("unix:{}", socket.display())).env("NO_COLOR", "1");
        weir::finish_within(command, PATIENCE * 3)
    }

    /// `weir status --json`
    pub fn status(&self) -> anyhow::Result<Value> {
        let ran = self.weir(&["status", "--json"])?;
        serde_json::from_str(&ran.stdout).with_context(|| format!("{ran:?}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        process.wait(PATIENCE).map(drop)
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().context("it doesn't run")?.signal(signal)
    }

    pub fn until_it_answers(&self) -> anyhow::Result<()> {
        wait::until_true(&format!("{} answers", self.name), PATIENCE, || Ok(get(self.addr, SITE).is_ok()))
            .with_context(|| self.log())
    }

    /// The generation that it serves; `None`: none, or nothing at all.
    pub fn served(&self) -> Option<String> {
        let reply = get(self.addr, SITE).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        let header = |line: &str| line.to_ascii_lowercase().strip_prefix("x-generation: ").map(str::to_owned);
        (head.starts_with("HTTP/1.1 200") && body == "ok").then(|| head.lines().find_map(header))?
    }

    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("--- the log of {}:\n{log}---", self.name)
    }
}

/// The whole answer to a GET.
pub fn get(to: SocketAddr, host: &str) -> anyhow::Result<String> {
    get_over(TcpStream::connect_timeout(&to, Duration::from_secs(1))?, host)
}

/// Likewise, over a connection that is there.
pub fn get_over(mut stream: TcpStream, host: &str) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    if reply.is_empty() {
        bail!("no answer");
    }
    Ok(reply)
}

/// A server that says "ok" to everything with this status, for as long as the process lives.
pub fn serve(status: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, status));
        }
    });
    Ok(addr)
}

/// One request after the other, until the client has had enough.
fn answer(mut stream: TcpStream, status: &str) {
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..read]);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Where something else may be put beside the hosts' folders.
impl AsRef<Path> for FleetLab {
    fn as_ref(&self) -> &Path {
        self.folder.path()
    }
}
