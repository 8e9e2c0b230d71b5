//! The daemon in the edge of a lab.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    Lab, PUBLIC, SITE,
    addresses::{EDGE, EDGE_V6, ONE, SERVER_PORT, TWO},
    client::Browser,
    namespace::{As, Namespace},
    process::Process,
    wait,
};

/// Where the admin API is, inside of the edge.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9190);

/// The socket on which a lab's daemon takes orders. In a folder where a daemon without privileges may make it.
pub fn admin_socket(lab: &Lab) -> PathBuf {
    lab.folder().join("run/admin.sock")
}

/// How long the daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon. Killed on drop; its log is printed then, which the test harness shows for failed tests.
#[derive(Debug)]
pub struct Weir {
    process: Process,
    admin: Browser,
    config: PathBuf,
    quiet: bool,
}

/// What a command of `weir` printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary under test.
pub fn program() -> anyhow::Result<PathBuf> {
    let Some(path) = std::env::var_os("WEIR_BIN").map(PathBuf::from) else {
        bail!("WEIR_BIN isn't set: give it the absolute path of the `weir` to run (`cargo xtask test` does)");
    };
    ensure!(path.is_absolute(), "WEIR_BIN must be an absolute path, not {}", path.display());
    ensure!(path.is_file(), "WEIR_BIN names {}, and there is no such file", path.display());
    Ok(path)
}

/// What is a daemon's own in a configuration, whatever it serves; `kernel` goes to its section.
pub fn settings(folder: &Path, bpffs: &Path, socket: &Path, kernel: &str) -> String {
    let (folder, bpffs, socket) = (folder.display(), bpffs.display(), socket.display());
    format!(
        r#"[kernel]
interfaces = ["{PUBLIC}"]
bpffs = "{bpffs}"
cgroup = "off"
{kernel}
[admin]
bind = ["{ADMIN}", "unix:{socket}"]

[log]
access = "{folder}/access.log"

[state]
dir = "{folder}/state"

[allowlist.cloudflare]
refresh = "off"
"#
    )
}

/// The same of the lab's only edge.
pub fn settings_of(lab: &Lab, kernel: &str) -> String {
    settings(lab.folder(), &lab.folder().join("bpffs"), &admin_socket(lab), kernel)
}

/// The configuration that most tests begin with: HTTPS for Cloudflare only, two servers, quick probes.
pub fn standard(lab: &Lab) -> String {
    let certificates = lab.certificates();
    let certificates = certificates.display();
    let settings = settings_of(lab, "");
    format!(
        r#"{settings}
[entrypoint.https]
bind = ["{EDGE}:443", "[{EDGE_V6}]:443"]
allow = ["cloudflare"]
client_ip = {{ header = "CF-Connecting-IP", trust = ["cloudflare"] }}
tls = {{ certificates = "{certificates}" }}

[service.app]
servers = ["{ONE}:{SERVER_PORT}", "{TWO}:{SERVER_PORT}"]
health = {{ path = "/health", every = "200ms", timeout = "150ms", fall = 2, rise = 2 }}
when_all_down = "page:maintenance"

[[route]]
host = "{SITE}"
service = "app"
"#
    )
}

impl Weir {
    /// Starts `weir run` with this configuration; its admin address answers when this returns.
    pub fn start(lab: &Lab, toml: &str) -> anyhow::Result<Self> {
        Self::start_as(lab, toml, As::Root)
    }

    pub fn start_as(lab: &Lab, toml: &str, user: As) -> anyhow::Result<Self> {
        Self::start_in(&lab.edge, lab.folder(), toml, user)
    }

    /// Starts it on any host, with its configuration and its log in a folder of its own.
    pub fn start_in(host: &Namespace, folder: &Path, toml: &str, user: As) -> anyhow::Result<Self> {
        let config = folder.join("weir.toml");
        replace(&config, toml)?;
        let mut command = host.command_as(program()?, user)?;
        command.arg("run").arg(&config).env("NO_COLOR", "1");
        if user == As::Nobody {
            command.env_remove("HOME");
        }
        let process = Process::start("weir", command, &folder.join("weir.log"))?;
        let admin = Browser::plain(host, ADMIN)?.with_patience(Duration::from_secs(20));
        let mut weir = Self { process, admin, config, quiet: false };
        let started = wait::until_true("the daemon answers /ping", PATIENCE, || {
            if let Some(status) = weir.process.ended()? {
                bail!("the daemon ended at once ({status})");
            }
            Ok(weir.admin.get("/ping").is_ok_and(|reply| reply.status == 200))
        });
        if let Err(why) = started {
            weir.quiet = true;
            return Err(why.context(format!("the daemon did not start; its log:\n{}", weir.log_text())));
        }
        Ok(weir)
    }

    /// Doesn't print its log when it is dropped.
    pub fn quietly(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A client of the admin API.
    pub fn admin(&self) -> &Browser {
        &self.admin
    }

    pub fn status(&self) -> anyhow::Result<Value> {
        self.admin.get("/api/v1/status")?.json()
    }

    /// Puts another configuration in place in one step, as editors and deployments do.
    pub fn rewrite_config(&self, toml: &str) -> anyhow::Result<()> {
        replace(&self.config, toml)
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// SIGKILL; the kernel side stays.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(PATIENCE)
    }

    /// Waits for an end that somebody else brings about.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.process.wait(within)
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if !self.quiet {
            // The harness keeps this to itself, unless the test fails.
            eprintln!("--- the daemon's log:\n{}---", self.log_text());
        }
    }
}

/// Runs `weir` with these arguments in the edge, to its end.
pub fn run(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Ran> {
    run_as(lab, arguments, As::Root)
}

pub fn run_as(lab: &Lab, arguments: &[&str], user: As) -> anyhow::Result<Ran> {
    run_in(&lab.edge, &admin_socket(lab), arguments, user)
}

/// Runs `weir` on any host, with the socket on which its daemon takes orders.
pub fn run_in(host: &Namespace, socket: &Path, arguments: &[&str], user: As) -> anyhow::Result<Ran> {
    let mut command = host.command_as(program()?, user)?;
    // Orders are taken on the socket; what only looks may use either.
    let admin = match user {
        As::Root => format!("unix:{}", socket.display()),
        As::Nobody => ADMIN.to_string(),
    };
    command.args(arguments).env("NO_COLOR", "1").env("WEIR_ADMIN", admin);
    finish(command)
}

/// Runs a command to its end, which must come soon.
pub fn finish(command: Command) -> anyhow::Result<Ran> {
    finish_within(command, PATIENCE)
}

/// Runs a command that takes longer.
pub fn finish_within(mut command: Command, patience: Duration) -> anyhow::Result<Ran> {
    let title = format!("{command:?}");
    let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("can't start {title}"))?;
    let ended = wait::until(&format!("{title} ends"), patience, || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let (stdout, stderr) = (text(out)?, text(err)?);
    match ended {
        Ok(status) => Ok(Ran { code: status.code().unwrap_or(-1), stdout, stderr }),
        Err(why) => Err(why.context(format!("it had printed:\n{stdout}\n{stderr}"))),
    }
}

fn text(mut file: std::fs::File) -> anyhow::Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).with_context(|| format!("can't write {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("can't write {}", path.display()))
}
