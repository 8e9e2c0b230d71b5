//! A small internet on one machine.
//!
//! ```text
//!  visitor  173.245.48.10   (an address of Cloudflare's) ─┐
//!           2400:cb00::10                                 │             ┌─ 10.0.0.11  server one
//!                                                     internet ─ public edge
//!  stranger 203.0.113.9                                   │  198.51.100.1 └─ 10.0.0.12  server two
//!           2001:db8:bad::9 ──────────────────────────────┘  2001:db8:ed9e::1
//! ```
//!
//! Every box is a network namespace, every line a veth pair whose ends are made right inside of two namespaces.
//! The addresses are the same in every lab: labs can't see each other. The names of the namespaces carry the lab
//! process's id, so that [`sweep`] knows what a killed process has left behind.

pub mod addresses;
pub mod certificates;
pub mod client;
pub mod knock;
pub mod lists;
pub mod load;
pub mod namespace;
pub mod pinned;
pub mod process;
pub mod server;
pub mod stand;
pub mod station;
pub mod wait;
pub mod weir;

use std::{
    collections::hash_map::RandomState,
    fs::{File, Permissions},
    hash::{BuildHasher, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use anyhow::{Context, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
};

use certificates::Authority;
use namespace::{HANDLES, Namespace};

/// What every name of a lab begins with, before the id of its process.
const PREFIX: &str = "weir-";

/// The interface of the edge that faces the internet: where the gate goes.
pub const PUBLIC: &str = "public";

/// The name that the edge's certificate is for; `www.`, `api.` and so on are covered too.
pub const SITE: &str = "example.com";

/// The namespaces, the folder and the certificate authority. What runs in them ([`weir::Weir`],
/// [`server::Server`]) are guards of their own; all of it goes on drop.
#[derive(Debug)]
pub struct Lab {
    name: String,
    /// Holds everything below except what the tests start.
    folder: PathBuf,
    pub internet: Namespace,
    pub visitor: Namespace,
    pub stranger: Namespace,
    pub edge: Namespace,
    pub one: Namespace,
    pub two: Namespace,
    pub authority: Authority,
    /// Removes, in its own drop, what was made before [`Lab::build`] could fail.
    _remains: Remains,
}

/// A single namespace with nothing but loopback, and a folder: for benchmarks.
#[derive(Debug)]
pub struct Island {
    pub namespace: Namespace,
    remains: Remains,
}

impl Island {
    pub fn build() -> anyhow::Result<Self> {
        SWEPT.call_once(sweep);
        let remains = Remains::named();
        std::fs::create_dir(&remains.folder)
            .with_context(|| format!("can't make {}", remains.folder.display()))?;
        let name = format!("{}-island", remains.name);
        {
            let _turn = turn()?;
            ip(&["-batch", "-"], &format!("netns add {name}\n"))?;
        }
        ip(&["-n", &name, "-batch", "-"], "link set lo up\n")?;
        Ok(Self { namespace: Namespace::open(&name)?, remains })
    }

    pub fn folder(&self) -> &Path {
        &self.remains.folder
    }
}

static SWEPT: Once = Once::new();

/// What a lab leaves in the machine, and must take back: namespace handles, a mount, a folder.
#[derive(Debug)]
struct Remains {
    name: String,
    folder: PathBuf,
}

impl Lab {
    /// Builds the network, mounts a bpffs, makes certificates. About 0.1 s.
    pub fn build() -> anyhow::Result<Self> {
        SWEPT.call_once(sweep);
        let remains = Remains::named();
        let (name, folder) = (remains.name.clone(), remains.folder.clone());

        let inner = |folder: &Path| -> anyhow::Result<Authority> {
            std::fs::create_dir(folder)?;
            // A daemon without privileges reads its configuration here too.
            std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
            for own in ["run", "state"] {
                std::fs::create_dir(folder.join(own))?;
                std::fs::set_permissions(folder.join(own), Permissions::from_mode(0o777))?;
            }
            let bpffs = folder.join("bpffs");
            std::fs::create_dir(&bpffs)?;
            mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("can't mount a bpffs at {}", bpffs.display()))?;

            let authority = Authority::new("Weir lab")?;
            std::fs::write(folder.join("ca.pem"), authority.pem())?;
            let wildcard = format!("*.{SITE}");
            authority.issue(&[SITE, &wildcard])?.write(&folder.join("certs"), "site")?;
            let servers = ["app.internal", &addresses::ONE.to_string(), &addresses::TWO.to_string()];
            authority.issue(&servers)?.write(&folder.join("server"), "server")?;
            Ok(authority)
        };
        let authority = inner(&folder).with_context(|| format!("can't prepare {}", folder.display()))?;
        lay_cables(&name)?;
        let open = |role: &str| Namespace::open(&format!("{name}-{role}"));
        let lab = Self {
            internet: open("internet")?,
            visitor: open("visitor")?,
            stranger: open("stranger")?,
            edge: open("edge")?,
            one: open("one")?,
            two: open("two")?,
            authority,
            name: name.clone(),
            folder,
            _remains: remains,
        };
        lab.give_addresses()?;
        Ok(lab)
    }

    /// `weir-<pid>-<random>`, the beginning of its namespaces' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for configurations, logs and whatever a test writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A bpffs of this lab alone.
    pub fn bpffs(&self) -> PathBuf {
        self.folder.join("bpffs")
    }

    /// The edge's certificates: `site.crt` and `site.key`.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// The authority's own certificate, for clients.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn namespaces(&self) -> [&Namespace; 6] {
        [&self.internet, &self.visitor, &self.stranger, &self.edge, &self.one, &self.two]
    }

    fn give_addresses(&self) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let tasks: Vec<_> = self
                .namespaces()
                .map(|namespace| scope.spawn(|| addresses::give(namespace, namespace.role())))
                .into_iter()
                .collect();
            tasks
                .into_iter()
                .try_for_each(|task| task.join().unwrap_or_else(|_| bail!("a set-up thread panicked")))
        })
    }
}

impl Namespace {
    /// The last part of its name: `edge`, `visitor` …
    fn role(&self) -> &str {
        self.name().rsplit('-').next().unwrap_or_default()
    }
}

/// Makes the namespaces and the veth pairs between them.
fn lay_cables(lab: &str) -> anyhow::Result<()> {
    let mut script = String::new();
    for role in ["internet", "visitor", "stranger", "edge", "one", "two"] {
        script.push_str(&format!("netns add {lab}-{role}\n"));
    }
    for (from, here, to, there) in [
        ("visitor", "net", "internet", "visitor"),
        ("stranger", "net", "internet", "stranger"),
        ("edge", PUBLIC, "internet", "edge"),
        ("edge", "one", "one", "edge"),
        ("edge", "two", "two", "edge"),
    ] {
        script.push_str(&format!(
            "link add {here} netns {lab}-{from} type veth peer name {there} netns {lab}-{to}\n"
        ));
    }
    // The first `ip netns add` of a machine mounts its folder over itself; two at once would hide one's handles.
    let _turn = turn()?;
    ip(&["-batch", "-"], &script)
}

/// Held by whoever makes or removes namespaces.
fn turn() -> anyhow::Result<Flock<File>> {
    let path = std::env::temp_dir().join("weir-lab.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, why)| anyhow::anyhow!("can't take the lab lock: {why}"))
}

/// Runs `ip`, with a script for its `-batch -`.
pub fn ip(arguments: &[&str], script: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("can't run `ip` (the package iproute2)")?;
    child.stdin.take().context("no stdin")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "`ip {}` failed: {}\n{script}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

impl Remains {
    fn named() -> Self {
        let name = format!("{PREFIX}{}-{:04x}", std::process::id(), random() & 0xffff);
        Self { folder: std::env::temp_dir().join(&name), name }
    }
}

/// Removes the labs of this process, which is about to end without dropping them.
pub fn remove_all() {
    remove_those_of(|pid| pid == std::process::id());
}

impl Drop for Remains {
    fn drop(&mut self) {
        // Keeps a failed test's evidence when asked to.
        let kept = std::thread::panicking() && std::env::var_os("WEIR_LAB_KEEP").is_some();
        remove(&self.name, (!kept).then_some(&self.folder));
    }
}

/// Best effort, and complete where nothing is missing: what can't be removed now is swept later.
fn remove(lab: &str, folder: Option<&Path>) {
    if let Some(folder) = folder {
        let bpffs = folder.join("bpffs");
        // Lazily: a daemon may still be ending. The pins go with the last user.
        let _ = umount2(&bpffs, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(folder);
    }
    let script: String = handles()
        .filter(|handle| handle.strip_prefix(lab).is_some_and(|rest| rest.starts_with('-')))
        .map(|handle| format!("netns del {handle}\n"))
        .collect();
    if !script.is_empty() {
        let _turn = turn();
        let _ = ip(&["-force", "-batch", "-"], &script);
    }
}

fn handles() -> impl Iterator<Item = String> {
    entries(Path::new(HANDLES))
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Removes what labs of processes that are dead have left. Their programs died with them.
pub fn sweep() {
    remove_those_of(|pid| !Path::new(&format!("/proc/{pid}")).exists());
}

fn remove_those_of(process: impl Fn(u32) -> bool) {
    let mut labs: Vec<String> = handles()
        .chain(entries(&std::env::temp_dir()))
        .filter_map(|name| {
            let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
            let pid: u32 = parts.next()?.parse().ok()?;
            let random = parts.next()?;
            process(pid).then(|| format!("{PREFIX}{pid}-{random}"))
        })
        .collect();
    labs.sort();
    labs.dedup();
    for lab in labs {
        remove(&lab, Some(&std::env::temp_dir().join(&lab)));
    }
}

/// Good enough to tell labs apart.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
