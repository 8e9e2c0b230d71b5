//! Native XDP on a real driver: two virtio ports, connected to each other, which the VMs of `cargo xtask test-kernels`
//! have. Ignored elsewhere.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{
    EbpfLoader,
    programs::{Xdp, XdpMode},
};
use proxy_common::names;
use proxy_user::{
    config::model::KernelMode,
    kernel::{self, Change, Desired, Hook, Kernel, object_built_in},
};

#[path = "support/edge.rs"]
mod edge;
#[path = "support/loader.rs"]
mod loading;
#[path = "support/scratch.rs"]
mod scratch;

use edge::{Lab, STRANGER, VISITOR, desired};
use loading::Loader;
use scratch::{Scratch, in_scratch, tc_hook};

fn wired(scratch: &Scratch) -> Lab {
    Lab::between(scratch.wired_neighbour("edge0", "outside0"), "edge0", "outside0")
}

#[test]
#[ignore = "wants two connected virtio ports: `cargo xtask test-kernels`"]
fn a_virtio_port_is_guarded_by_native_xdp() {
    in_scratch("a_virtio_port_is_guarded_by_native_xdp", |scratch| {
        let lab = wired(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let applied = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        let (hook, why) = (applied.interfaces[0].hook, applied.interfaces[0].why.as_str());
        assert_eq!((hook, why), (Hook::Xdp, "`virtio_net` is a real device"));
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());

        // Other lists, in place.
        kernel.apply(&desired(2, &["198.51.100.0/24"])).unwrap();
        lab.comes_in(STRANGER);
        lab.is_dropped(VISITOR, || kernel.status().unwrap());

        // To the other hook and back.
        for (generation, mode, hook) in [(3, KernelMode::Tc, tc_hook()), (4, KernelMode::Auto, Hook::Xdp)] {
            let applied = kernel.apply(&Desired { mode, ..desired(generation, &["192.0.2.0/24"]) }).unwrap();
            assert_eq!((applied.interfaces[0].hook, applied.interfaces[0].change), (hook, Change::Moved));
            lab.comes_in(VISITOR);
            lab.is_dropped(STRANGER, || kernel.status().unwrap());
        }
        drop(kernel);
        kernel::unload(&scratch.bpffs).unwrap();
        lab.comes_in(STRANGER);
    });
}

#[test]
#[ignore = "wants two connected virtio ports: `cargo xtask test-kernels`"]
fn a_killed_loader_leaves_the_gate_on_the_port() {
    in_scratch("a_killed_loader_leaves_the_gate_on_the_port", |scratch| {
        let lab = wired(scratch);
        Loader::start(scratch).kill();
        let observe = || kernel::observe(&scratch.bpffs).unwrap().unwrap();
        assert_eq!(observe().interfaces[0].hook, Some(Hook::Xdp));
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, observe);
        let mut next = Kernel::open(&scratch.bpffs).unwrap();
        let applied = next.apply(&desired(2, &["192.0.2.0/24"])).unwrap();
        assert_eq!(applied.interfaces[0].change, Change::Adopted);
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, observe);
    });
}

#[test]
#[ignore = "wants two connected virtio ports: `cargo xtask test-kernels`"]
fn on_a_port_with_another_xdp_program_the_gate_takes_the_other_hook() {
    in_scratch("on_a_port_with_another_xdp_program_the_gate_takes_the_other_hook", |scratch| {
        let lab = wired(scratch);
        let mut theirs = EbpfLoader::new().load(object_built_in().unwrap()).unwrap();
        let program: &mut Xdp = theirs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        program.load().unwrap();
        let id = program.info().unwrap().id();
        program.attach("edge0", XdpMode::Driver).unwrap();

        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let applied = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        let interface = &applied.interfaces[0];
        assert_eq!(interface.hook, tc_hook());
        assert!(interface.why.contains(&format!("(id {id})")), "{}", interface.why);
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

/// The daemon itself: guards, is killed, is started again, takes over another list, and its gate is unloaded.
#[test]
#[ignore = "wants two connected virtio ports: `cargo xtask test-kernels`"]
fn the_daemon_guards_a_port() {
    in_scratch("the_daemon_guards_a_port", |scratch| {
        let lab = wired(scratch);
        let mut weir = Daemon::start(scratch, "192.0.2.0/24");
        lab.neighbour.run(|| assert!(reached(VISITOR).is_ok() && reached(STRANGER).is_err()));
        weir.kill();
        // Nobody listens any more: who is let in is refused, the others hear nothing.
        let kind = |outcome: std::io::Result<TcpStream>| outcome.unwrap_err().kind();
        lab.neighbour.run(move || {
            assert_eq!(kind(reached(VISITOR)), std::io::ErrorKind::ConnectionRefused);
            assert_eq!(kind(reached(STRANGER)), std::io::ErrorKind::TimedOut);
        });
        let mut weir = Daemon::start(scratch, "198.51.100.0/24");
        lab.neighbour.run(|| assert!(reached(STRANGER).is_ok() && reached(VISITOR).is_err()));
        let said = weir_says(&["kernel", "status", "--bpffs", scratch.bpffs.to_str().unwrap()]);
        assert!(said.contains("interface edge0: xdp"), "{said}");
        weir.kill();
        let said = weir_says(&["kernel", "unload", "--bpffs", scratch.bpffs.to_str().unwrap()]);
        assert!(said.contains("removed the gate from edge0"), "{said}");
        lab.neighbour.run(move || assert_eq!(kind(reached(VISITOR)), std::io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn loader() {
    loading::load();
}

const ENTRYPOINT: &str = "203.0.113.1:8443";

struct Daemon(Child);

impl Daemon {
    fn start(scratch: &Scratch, prefix: &str) -> Self {
        let folder = scratch.folder();
        let (bpffs, admin) = (scratch.bpffs.display(), folder.join("admin.sock"));
        let admin = admin.display();
        let config = folder.join("weir.toml");
        let toml = format!(
            r#"[kernel]
interfaces = ["edge0"]
bpffs = "{bpffs}"

[admin]
bind = "unix:{admin}"

[allowlist.friends]
prefixes = ["{prefix}"]

[entrypoint.https]
bind = "{ENTRYPOINT}"
allow = ["friends"]

[service.app]
servers = ["127.0.0.1:9"]

[[route]]
service = "app"
"#
        );
        std::fs::write(&config, toml).unwrap();
        let mut command = Command::new(weir());
        command.arg("run").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Self(command.stderr(Stdio::piped()).spawn().unwrap());
        let begun = Instant::now();
        while !turned_away() {
            assert!(daemon.0.try_wait().unwrap().is_none(), "{}", daemon.log());
            assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the edge's own address, which is on no list, is turned away at accept: the gate is there before that.
fn turned_away() -> bool {
    let Ok(mut connection) = TcpStream::connect(ENTRYPOINT) else { return false };
    connection.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    match connection.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn weir() -> PathBuf {
    std::env::var_os("WEIR_BIN").map(PathBuf::from).filter(|weir| Path::new(weir).is_file()).unwrap()
}

fn weir_says(arguments: &[&str]) -> String {
    let output = Command::new(weir()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn reached(from: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = ENTRYPOINT.parse().unwrap();
    edge::connect_from(from.parse().unwrap(), to, Duration::from_secs(2))
}
