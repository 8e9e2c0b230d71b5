//! Two edge hosts of one lab: on the same wire towards the internet, with ways to the same servers, and an address that
//! keepalived holds on one of them.
//!
//! ```text
//!             ┌─ edge    198.51.100.1 ─┐
//!  internet ══╡                        ├─ servers one and two
//!             └─ second  198.51.100.2 ─┘
//!                 198.51.100.10 is where one of the two is
//! ```

use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{
    Lab, PUBLIC, SITE,
    addresses::{self, ONE, SERVER_PORT, TWO},
    ip,
    namespace::{As, Namespace},
    process::Process,
    remains::turn,
    wait,
    weir::{self, Ran, Weir},
};

/// The address that clients know.
pub const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const SHARED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xed9e, 0, 0, 0, 0, 0x10);
/// Of the second host's own.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// How long anything here may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);

/// The wire is a bridge in the internet's namespace.
const WIRE: &str = "link add wire address 02:00:00:00:00:fe type bridge mcast_snooping 0
 link set wire up
 address del 198.51.100.254/24 dev edge
 address del 2001:db8:ed9e::fe/64 dev edge
 link set edge master wire
 link set second up
 link set second master wire
 address add 198.51.100.254/24 dev wire
 address add 2001:db8:ed9e::fe/64 dev wire nodad";

// Dropped from top to bottom: the lab goes last.
#[derive(Debug)]
pub struct Pair {
    pub hosts: [Host; 2],
    pub lab: Lab,
}

/// One of the two, with what runs on it.
#[derive(Debug)]
pub struct Host {
    pub keepalived: Option<Process>,
    pub weir: Option<Weir>,
    pub namespace: Namespace,
    /// Its configuration, state, socket and logs.
    pub folder: PathBuf,
    /// What its weir runs by.
    toml: String,
    bpffs: PathBuf,
    is_quiet: bool,
    /// The end of its wire in the internet's namespace.
    wire: &'static str,
}

impl Pair {
    /// Lays the second host's cables. Nothing runs yet.
    pub fn build() -> anyhow::Result<Self> {
        let lab = Lab::build()?;
        let name = lab.name();
        {
            let mut script = format!("netns add {name}-second\n");
            for (here, to, there) in
                [(PUBLIC, "internet", "second"), ("one", "one", "second"), ("two", "two", "second")]
            {
                script.push_str(&format!(
                    "link add {here} netns {name}-second type veth peer name {there} netns {name}-{to}\n"
                ));
            }
            let _turn = turn()?;
            ip(&["-batch", "-"], &script)?;
        }
        let second = Namespace::open(&format!("{name}-second"))?;
        addresses::give(&second, "second")?;
        ip(&["-n", lab.internet.name(), "-batch", "-"], WIRE)?;
        for server in [&lab.one, &lab.two] {
            ip(&["-n", server.name(), "-batch", "-"], "link set second up\nroute add 10.0.0.2 dev second")?;
        }
        let first = Namespace::open(&format!("{name}-edge"))?;
        let hosts = [Host::new(&lab, first, "edge")?, Host::new(&lab, second, "second")?];
        Ok(Self { hosts, lab })
    }

    /// Weir and keepalived on both, with this configuration but for each host's own folders. The first has the address
    /// when this returns.
    pub fn start(&mut self, toml: impl Fn(&Host) -> String) -> anyhow::Result<()> {
        for index in 0..2 {
            self.hosts[index].toml = toml(&self.hosts[index]);
            self.hosts[index].start_weir()?;
            self.hosts[index].start_keepalived()?;
            // Whoever comes second finds it taken.
            wait::until_true("the first host has the address", PATIENCE, || self.hosts[0].has_address())
                .with_context(|| self.told())?;
        }
        Ok(())
    }

    /// Cuts a host off, as if its power had gone: nothing more comes from it, and nobody is told. It goes on for itself, and
    /// thinks that it has the address.
    pub fn cut(&self, index: usize) -> anyhow::Result<()> {
        let wire = self.hosts[index].wire;
        ip(&["-n", self.lab.internet.name(), "-batch", "-"], &format!("link set {wire} nomaster"))
    }

    pub fn mend(&self, index: usize) -> anyhow::Result<()> {
        let wire = self.hosts[index].wire;
        ip(&["-n", self.lab.internet.name(), "-batch", "-"], &format!("link set {wire} master wire"))
    }

    /// Whether each keepalived takes its host's weir for well, so that either may be lost: who has come back counts only after three
    /// good checks.
    pub fn is_whole(&self) -> bool {
        self.hosts.iter().all(|host| {
            let told = host.keepalived.as_ref().map(Process::log_text).unwrap_or_default();
            told.lines()
                .rfind(|line| line.contains("VRRP_Script(weir)"))
                .is_some_and(|line| line.contains("succeeded"))
        })
    }

    /// What both keepalived say.
    pub fn told(&self) -> String {
        let logs = self.hosts.iter().filter_map(|host| Some(host.keepalived.as_ref()?.log_text()));
        logs.collect::<Vec<_>>().join("---\n")
    }

    /// Whoever has the address.
    pub fn holder(&self) -> anyhow::Result<Option<usize>> {
        let has = [self.hosts[0].has_address()?, self.hosts[1].has_address()?];
        Ok(match has {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        })
    }
}

impl Host {
    fn new(lab: &Lab, namespace: Namespace, wire: &'static str) -> anyhow::Result<Self> {
        let (folder, bpffs) = (lab.folder().join(wire), lab.bpffs().join(wire));
        for folder in [&folder, &folder.join("run"), &folder.join("state"), &bpffs] {
            fs::create_dir(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        Ok(Self {
            keepalived: None,
            weir: None,
            namespace,
            folder,
            toml: String::new(),
            bpffs,
            is_quiet: false,
            wire,
        })
    }

    /// What is a host's own in a configuration.
    pub fn settings(&self) -> String {
        weir::settings(&self.folder, &self.bpffs, &self.socket(), "")
    }

    /// Also again, after [`Self::kill_weir`].
    pub fn start_weir(&mut self) -> anyhow::Result<()> {
        let weir = Weir::start_in(&self.namespace, &self.folder, &self.toml, As::Root)?;
        self.weir = Some(if self.is_quiet { weir.quietly() } else { weir });
        Ok(())
    }

    /// By the file that operators get.
    pub fn start_keepalived(&mut self) -> anyhow::Result<()> {
        let file = self.folder.join("keepalived.conf");
        fs::write(&file, configuration(self.wire)?)?;
        fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        let mut command = self.namespace.command("keepalived")?;
        command.arg("--use-file").arg(&file).args(["--dont-fork", "--log-console", "--vrrp"]);
        for (flag, name) in [("--pid", "keepalived.pid"), ("--vrrp_pid", "vrrp.pid")] {
            command.arg(flag).arg(self.folder.join(name));
        }
        self.keepalived = Some(Process::start("keepalived", command, &self.folder.join("keepalived.log"))?);
        Ok(())
    }

    /// Its weirs don't print their logs when they are dropped.
    pub fn hush(&mut self) {
        self.is_quiet = true;
        self.weir = self.weir.take().map(Weir::quietly);
    }

    pub fn weir(&self) -> anyhow::Result<&Weir> {
        self.weir.as_ref().context("no weir runs on this host")
    }

    /// SIGKILL.
    pub fn kill_weir(&mut self) -> anyhow::Result<()> {
        self.weir.as_mut().context("no weir runs on this host")?.kill()
    }

    /// Runs `weir` there.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        weir::run_in(&self.namespace, &self.socket(), arguments, As::Root)
    }

    pub fn has_address(&self) -> anyhow::Result<bool> {
        Ok(self.namespace.proc_net("fib_trie")?.contains(&SHARED.to_string()))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run/admin.sock")
    }
}

/// The example with its words filled in.
fn configuration(name: &str) -> anyhow::Result<String> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/keepalived/keepalived.conf");
    let text = fs::read_to_string(&example).with_context(|| format!("can't read {}", example.display()))?;
    let program = weir::program()?.display().to_string();
    let mut filled = text.clone();
    for (word, value) in [
        ("EDGE_NAME", name),
        ("INTERFACE", PUBLIC),
        ("ADDRESS_V4", &format!("{SHARED}/32")),
        ("ADDRESS_V6", &format!("{SHARED_V6}/128")),
        ("/usr/bin/weir", &program),
        ("script_user weir", "script_user nobody"),
    ] {
        ensure!(text.contains(word), "{} has no {word}", example.display());
        filled = filled.replace(word, value);
    }
    Ok(filled)
}

/// Where the site is served, whoever has the address.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SHARED), port)
}

pub fn at_v6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(SHARED_V6), port)
}

/// The site over HTTPS at the shared address, from both servers.
pub fn site(lab: &Lab) -> String {
    let certificates = lab.certificates();
    format!(
        r#"[entrypoint.https]
bind = ["{SHARED}:443", "[{SHARED_V6}]:443"]
floating = true
allow = ["cloudflare"]
tls = {{ certificates = "{}" }}
[service.app]
servers = ["{ONE}:{SERVER_PORT}", "{TWO}:{SERVER_PORT}"]
health = {{ path = "/health", every = "200ms", timeout = "150ms" }}
[[route]]
host = "{SITE}"
service = "app"
"#,
        certificates.display()
    )
}
