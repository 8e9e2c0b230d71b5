//! A network namespace, a mount namespace with a bpffs of its own, and nothing to clean up.
//!
//! All of it hangs on one thread: when that ends, also by a panic, the kernel takes back interfaces, links,
//! pins and mounts. Processes that the thread starts live in the same namespaces.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfLoader};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use proxy_common::names;
use proxy_user::kernel::{Hook, object_built_in, telling_object_built_in};

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
    folder: tempfile::TempDir,
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
        let bpffs = folder.path().join("bpffs");
        std::fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        Self { bpffs, folder }
    }

    /// For whatever a test writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A veth pair: `here` in this namespace, `there` in a new one.
    pub fn neighbour(&self, here: &str, there: &str) -> Neighbour {
        let (neighbour, namespace) = Neighbour::alone();
        ip(&format!("link add {here} type veth peer name {there} netns {namespace}"));
        ip(&format!("link set {here} up"));
        let there = there.to_owned();
        neighbour.run(move || ip(&format!("link set {there} up")));
        neighbour
    }

    /// As [`Self::neighbour`], with the two virtio ports of a VM, which are connected to each other. They return to
    /// the VM's own namespace when these ones end.
    pub fn wired_neighbour(&self, here: &str, there: &str) -> Neighbour {
        let (neighbour, namespace) = Neighbour::alone();
        let ours = namespace_of_thread();
        let ports = thread::spawn(move || {
            setns(File::open("/proc/1/ns/net").unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let ports = virtio_ports();
            ip(&format!("link set {} netns {ours}", ports[0]));
            ip(&format!("link set {} netns {namespace}", ports[1]));
            ports
        });
        let ports = ports.join().unwrap();
        let rename = |port: &str, to: &str| {
            if port != to {
                ip(&format!("link set {port} name {to}"));
            }
            ip(&format!("link set {to} up"));
        };
        rename(&ports[0], here);
        let (port, there) = (ports[1].clone(), there.to_owned());
        neighbour.run(move || rename(&port, &there));
        neighbour
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // So that the folder can go; the pins go with the last mount.
        let _ = umount2(&self.bpffs, MntFlags::MNT_DETACH);
    }
}

/// Waits for the two of them: namespaces of an earlier test give them back when they end, which is a little later.
fn virtio_ports() -> Vec<String> {
    let begun = Instant::now();
    loop {
        let all = std::fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap());
        let virtio = all.filter(|port| {
            std::fs::read_link(port.path().join("device/driver"))
                .is_ok_and(|driver| driver.ends_with("virtio_net"))
        });
        let mut names: Vec<String> = virtio.map(|port| port.file_name().into_string().unwrap()).collect();
        names.sort();
        if names.len() == 2 {
            return names;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "there are no two virtio ports here, but {names:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn namespace_of_thread() -> String {
    format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())
}

impl Neighbour {
    /// With no cable yet; and where its namespace is.
    fn alone() -> (Self, String) {
        let (send, receive) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(namespace_of_thread()).unwrap();
            receive.into_iter().for_each(|work| work());
        });
        (Self { work: send }, told.recv().unwrap())
    }

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
    programs_of(object_built_in().unwrap(), bpffs)
}

/// Those that log.
pub fn telling_programs_over(bpffs: &Path) -> Ebpf {
    programs_of(telling_object_built_in().unwrap(), bpffs)
}

fn programs_of(object: &[u8], bpffs: &Path) -> Ebpf {
    let maps = bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS);
    let mut loader = EbpfLoader::new();
    for name in names::GATE_MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(object).unwrap()
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
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{name} must run under CI: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}
