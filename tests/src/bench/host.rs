//! A host of our own to measure in: a thread with its own mounts and interfaces, all of which vanish with it.

use std::{path::PathBuf, process::Command, sync::mpsc, thread};

use anyhow::{Context, ensure};
use aya::{Ebpf, EbpfLoader, programs::Program};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use proxy_common::names;
use proxy_user::{
    config::model::{KernelMode, SourceLimit, SynCookies},
    kernel::{Applied, Desired, Guarded, Kernel, NamedList, Protocol, object_built_in},
};

pub const EDGE_V4: &str = "203.0.113.1:443";
pub const EDGE_V6: &str = "[2001:db8:ed9e::1]:443";

/// Where this thread's bpffs is.
pub struct Host {
    pub bpffs: PathBuf,
    _folder: tempfile::TempDir,
}

/// Runs `work` in a host of its own. Needs root and the eBPF object.
pub fn with_host<T: Send + 'static>(
    work: impl FnOnce(&Host) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let worked = thread::spawn(move || work(&Host::new()?)).join();
    worked.map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

impl Host {
    fn new() -> anyhow::Result<Self> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("namespaces of its own: needs root")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let folder = tempfile::tempdir()?;
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)?;
        ip("link set lo up")?;
        Ok(Self { bpffs: folder.path().to_owned(), _folder: folder })
    }

    /// The gate's object once more, over the maps that the kernel side has filled and pinned.
    pub fn programs(&self) -> anyhow::Result<Ebpf> {
        let maps = self.bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS);
        let mut loader = EbpfLoader::new();
        for name in names::GATE_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        Ok(loader.load(object()?)?)
    }
}

/// Has the gate let in these prefixes at the measured entrypoint.
pub fn allow(
    kernel: &mut Kernel,
    generation: u64,
    interface: Option<&str>,
    prefixes: Vec<ipnet::IpNet>,
) -> anyhow::Result<Applied> {
    let lists = vec![NamedList { name: "bench".into(), cdn: false, prefixes: prefixes.into() }];
    guard(kernel, generation, interface, lists, None)
}

/// Likewise, for sources that may send no more than so much. No lists: anybody may.
pub fn guard(
    kernel: &mut Kernel,
    generation: u64,
    interface: Option<&str>,
    lists: Vec<NamedList>,
    limit: Option<SourceLimit>,
) -> anyhow::Result<Applied> {
    Ok(kernel.apply(&Desired {
        generation,
        interfaces: interface.into_iter().map(Into::into).collect(),
        mode: KernelMode::Xdp,
        log: false,
        guarded: vec![Guarded {
            protocols: vec![Protocol::Tcp],
            shadow: false,
            limit,
            syn_cookies: SynCookies::OFF,
            entrypoint: "bench".into(),
            bind: vec![EDGE_V4.parse()?, EDGE_V6.parse()?],
            lists,
        }],
    })?)
}

pub fn object() -> anyhow::Result<&'static [u8]> {
    object_built_in().context("the eBPF object is not built; run `cargo xtask build`")
}

pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the eBPF object"))
}

/// `ip` with these arguments, in this thread's namespaces.
pub fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("can't run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Another namespace at the other ends of veth pairs. Work is done in it by sending it there.
pub struct Neighbour {
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    path: String,
}

impl Neighbour {
    pub fn new() -> anyhow::Result<Self> {
        let (send, receive) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| nix::unistd::gettid());
            if tell.send(entered).is_ok() {
                receive.into_iter().for_each(|work| work());
            }
        });
        let thread = told.recv()??;
        Ok(Self { work: send, path: format!("/proc/{}/task/{thread}/ns/net", std::process::id()) })
    }

    /// A veth pair: `here` in this thread's namespace, `there` over there.
    pub fn connect(&self, here: &str, there: &str) -> anyhow::Result<()> {
        ip(&format!(
            "link add {here} address 02:00:00:00:00:01 type veth peer name {there} address 02:00:00:00:00:02 netns {}",
            self.path
        ))?;
        ip(&format!("link set {here} up"))?;
        let there = there.to_owned();
        self.run(move || ip(&format!("link set {there} up")))?
    }

    /// Runs something over there and waits for what it gives.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let (tell, told) = mpsc::channel();
        let sent = self.work.send(Box::new(move || drop(tell.send(work()))));
        sent.ok().context("the other namespace is gone")?;
        told.recv().context("the work in the other namespace panicked")
    }
}
