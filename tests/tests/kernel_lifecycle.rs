//! The gate's life: first start, death of its daemon, adoption, swap of lists, removal. On real interfaces.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proxy_common::verdict::DropReason;
use proxy_user::{
    config::model::KernelMode,
    kernel::{self, Change, Desired, Guarded, Hook, Kernel, KernelStatus, NamedList},
};

#[path = "support/scratch.rs"]
mod scratch;

use scratch::{Neighbour, Scratch, in_scratch, ip};

const EDGE: &str = "203.0.113.1:443";
const VISITOR: &str = "192.0.2.10";
const STRANGER: &str = "198.51.100.10";

#[test]
fn a_stranger_is_dropped_and_a_visitor_comes_in() {
    in_scratch("a_stranger_is_dropped_and_a_visitor_comes_in", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let applied = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        assert_eq!((applied.interfaces[0].hook, applied.interfaces[0].change), (Hook::Tc, Change::Attached));

        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

#[test]
fn the_gate_stands_when_its_loader_is_killed_and_is_adopted_by_the_next() {
    in_scratch("the_gate_stands_when_its_loader_is_killed_and_is_adopted_by_the_next", |scratch| {
        let lab = Lab::new(scratch);
        let mut loader = Loader::start(scratch);
        loader.kill();

        let observe = || kernel::observe(&scratch.bpffs).unwrap().unwrap();
        let before = observe();
        assert_eq!(before.generation, Some(1));
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, observe);

        let mut next = Kernel::open(&scratch.bpffs).unwrap();
        lab.is_dropped(STRANGER, observe);
        let applied = next.apply(&desired(2, &["192.0.2.0/24"])).unwrap();
        assert_eq!(applied.interfaces[0].change, Change::Adopted);

        let after = next.status().unwrap();
        assert_eq!(after.generation, Some(2));
        assert_ne!(after.interfaces[0].program_id, before.interfaces[0].program_id);
        assert!(after.dropped(DropReason::NotListed) >= 2, "counters outlive the daemon");
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, observe);

        assert_eq!(
            next.apply(&desired(3, &["192.0.2.0/24"])).unwrap().interfaces[0].change,
            Change::Unchanged
        );
    });
}

#[test]
fn unload_leaves_nothing() {
    in_scratch("unload_leaves_nothing", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        drop(kernel);
        lab.is_dropped(STRANGER, || kernel::observe(&scratch.bpffs).unwrap().unwrap());

        let unloaded = kernel::unload(&scratch.bpffs).unwrap();
        assert_eq!((unloaded.interfaces, unloaded.programs, unloaded.maps), (vec!["edge0".to_owned()], 2, 7));
        assert_eq!(std::fs::read_dir(&scratch.bpffs).unwrap().filter(not_debug).count(), 0);
        assert!(kernel::observe(&scratch.bpffs).unwrap().is_none());
        lab.comes_in(STRANGER);
        // Twice is as good.
        kernel::unload(&scratch.bpffs).unwrap();
    });
}

/// bpffs shows two files of its own.
fn not_debug(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| !entry.file_name().to_string_lossy().ends_with(".debug"))
}

/// Not a test: what [`Loader`] runs in a process of its own, told by the environment.
#[test]
fn loader() {
    let Some(bpffs) = std::env::var_os(Loader::BPFFS) else { return };
    let mut kernel = Kernel::open(bpffs.as_ref()).unwrap();
    kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
    println!("{}", Loader::READY);
    // Until it is killed; no longer than the test that forgot to.
    std::thread::park_timeout(Duration::from_secs(60));
}

/// A process that loads the gate and then stays.
struct Loader(Child);

impl Loader {
    const BPFFS: &str = "WEIR_TEST_LOADER_BPFFS";
    const READY: &str = "the gate stands";

    fn start(scratch: &Scratch) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "loader", "--nocapture"])
            .env(Self::BPFFS, &scratch.bpffs)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(Self::READY)), "the loader did not load");
        Self(child)
    }

    /// SIGKILL: it can't tidy up.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An edge that listens, and a neighbour that holds the visitor's and the stranger's address.
struct Lab {
    listener: TcpListener,
    neighbour: Neighbour,
}

impl Lab {
    fn new(scratch: &Scratch) -> Self {
        let neighbour = scratch.neighbour("edge0", "outside0");
        ip("addr add 203.0.113.1/24 dev edge0");
        ip("route add default dev edge0");
        neighbour.run(|| {
            ip(&format!("addr add {VISITOR}/32 dev outside0"));
            ip(&format!("addr add {STRANGER}/32 dev outside0"));
            ip("route add 203.0.113.0/24 dev outside0");
        });
        Self { listener: TcpListener::bind(EDGE).unwrap(), neighbour }
    }

    fn comes_in(&self, from: &str) {
        let from = from.parse().unwrap();
        self.neighbour.run(move || connect_from(from, Duration::from_secs(5))).unwrap();
        assert_eq!(self.listener.accept().unwrap().1.ip(), from);
    }

    /// Sends until the gate has counted it; nothing may have come through.
    fn is_dropped(&self, from: &str, status: impl Fn() -> KernelStatus) {
        let from: IpAddr = from.parse().unwrap();
        let before = status().dropped(DropReason::NotListed);
        let begun = Instant::now();
        while status().dropped(DropReason::NotListed) == before {
            assert!(begun.elapsed() < Duration::from_secs(5), "the gate counted no drop");
            assert!(self.neighbour.run(move || connect_from(from, Duration::from_millis(100))).is_err());
        }
        self.listener.set_nonblocking(true).unwrap();
        assert!(self.listener.accept().is_err(), "{from} came in");
        self.listener.set_nonblocking(false).unwrap();
    }
}

/// A connection from one of several addresses that an interface has.
fn connect_from(from: IpAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&EDGE.parse::<SocketAddr>().unwrap().into(), patience)?;
    Ok(socket.into())
}

fn desired(generation: u64, prefixes: &[&str]) -> Desired {
    let lists = vec![NamedList {
        name: "visitors".into(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }];
    Desired {
        generation,
        interfaces: vec!["edge0".into()],
        mode: KernelMode::Auto,
        guarded: vec![Guarded { entrypoint: "https".into(), bind: vec![EDGE.parse().unwrap()], lists }],
    }
}
