//! A network namespace, a mount namespace with a bpffs of its own, and nothing to clean up.
//!
//! All of it hangs on one thread: when that ends, also by a panic, the kernel takes back interfaces, links,
//! pins and mounts. Processes that the thread starts live in the same namespaces.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use aya::{Ebpf, EbpfLoader};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use proxy_common::names;
use proxy_user::kernel::{Hook, object_built_in};

/// Runs a test in a scratch host, or says why it can't.
pub fn in_scratch(name: &str, test: impl FnOnce(&Scratch) + Send + 'static) {
    if let Some(reason) = missing() {
        return skip(name, &reason);
    }
    let body = thread::Builder::new().name(name.to_owned()).spawn(move || test(&Scratch::new()));
    if let Err(panic) = body.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Where the thread's bpffs is mounted, and an interface to the neighbour.
pub struct Scratch {
    pub bpffs: PathBuf,
    _folder: tempfile::TempDir,
}

/// Another namespace at the other end of a veth pair. Work is done in it by sending it there.
pub struct Neighbour {
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Scratch {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        // Nothing mounted here is seen outside.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path().to_owned();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        Self { bpffs, _folder: folder }
    }

    /// A veth pair: `here` in this namespace, `there` in a new one.
    pub fn neighbour(&self, here: &str, there: &str) -> Neighbour {
        let (send, receive) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid()).unwrap();
            receive.into_iter().for_each(|work| work());
        });
        let thread = told.recv().unwrap();
        let namespace = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
        ip(&format!("link add {here} type veth peer name {there} netns {namespace}"));
        ip(&format!("link set {here} up"));
        let neighbour = Neighbour { work: send };
        let there = there.to_owned();
        neighbour.run(move || ip(&format!("link set {there} up")));
        neighbour
    }
}

impl Neighbour {
    /// Runs something over there and waits for what it gives.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.work.send(Box::new(move || drop(tell.send(work())))).unwrap();
        told.recv().expect("the work over there panicked")
    }
}

/// `ip` with these arguments, which must succeed.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Where the gate hangs when it isn't XDP: tcx came with Linux 6.6.
pub fn tc_hook() -> Hook {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version >= (6, 6) { Hook::Tcx } else { Hook::Clsact }
}

/// The gate's programs once more, not loaded yet, over the maps that the kernel side has filled and pinned.
pub fn programs_over(bpffs: &Path) -> Ebpf {
    let maps = bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS);
    let mut loader = EbpfLoader::new();
    for name in names::GATE_MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(object_built_in().unwrap()).unwrap()
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".into());
    }
    if object_built_in().is_none() {
        return Some("the eBPF object is not built; run `cargo xtask build`".into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF".into());
    }
    None
}

/// Past the capture of test output, which would hide it.
fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{name} must run under CI: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}
