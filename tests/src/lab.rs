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
//! process's id, so that [`remains::sweep`] knows what a killed process has left behind.

pub mod addresses;
pub mod certificates;
pub mod chromium;
pub mod client;
pub mod cluster;
pub mod etcd;
pub mod exchange;
pub mod exposition;
pub mod fleet;
pub mod frames;
pub mod http3;
pub mod knock;
pub mod lists;
pub mod load;
pub mod namespace;
pub mod pair;
pub mod pebble;
pub mod pinned;
pub mod podman;
pub mod process;
pub mod provided;
pub mod raw;
pub mod remains;
pub mod server;
pub mod stand;
pub mod station;
pub mod successors;
pub mod travellers;
pub mod wait;
pub mod weir;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use certificates::Authority;
use namespace::Namespace;
use remains::{Remains, turn};

/// The interface of the edge that faces the internet: where the gate goes.
pub const PUBLIC: &str = "public";

/// The name that the edge's certificate is for; `www.`, `api.` and so on are covered too.
pub const SITE: &str = "example.com";

/// The namespaces, the folder and the certificate authority. What runs in them ([`weir::Weir`],
/// [`server::Server`]) are guards of their own; all of it goes on drop.
#[derive(Debug)]
pub struct Lab {
    pub internet: Namespace,
    pub visitor: Namespace,
    pub stranger: Namespace,
    pub edge: Namespace,
    pub one: Namespace,
    pub two: Namespace,
    pub authority: Authority,
    /// Removes, in its own drop, also what was made before [`Lab::build`] failed. Dropped last.
    remains: Remains,
}

/// A single namespace with nothing but loopback, and a folder: for benchmarks.
#[derive(Debug)]
pub struct Island {
    pub namespace: Namespace,
    remains: Remains,
}

impl Island {
    pub fn build() -> anyhow::Result<Self> {
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

impl Lab {
    /// Builds the network, mounts a bpffs, makes certificates. About 0.1 s.
    pub fn build() -> anyhow::Result<Self> {
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
            remains,
        };
        lab.give_addresses()?;
        Ok(lab)
    }

    /// `weir-<pid>-<random>`, the beginning of its namespaces' names.
    pub fn name(&self) -> &str {
        &self.remains.name
    }

    /// A folder for configurations, logs and whatever a test writes.
    pub fn folder(&self) -> &Path {
        &self.remains.folder
    }

    /// A bpffs of this lab alone.
    pub fn bpffs(&self) -> PathBuf {
        self.folder().join("bpffs")
    }

    /// The edge's certificates: `site.crt` and `site.key`.
    pub fn certificates(&self) -> PathBuf {
        self.folder().join("certs")
    }

    /// The authority's own certificate, for clients.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
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
