//! A flood of SYNs from invented sources that are listed, against the daemon with all its workers, while a visitor asks.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use proxy_common::names;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use weir_lab::{
    lab::{Lab, addresses::EDGE, namespace::Namespace, stand::Stand, wait, weir},
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// SYNs a second.
const RATE: u64 = 20_000;
/// Of each worker's listener in this lab.
const QUEUE: usize = 64;
/// A flood is over 10 s after it has become less.
const PATIENCE: Duration = Duration::from_secs(30);
/// However long a test takes.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn a_visitor_is_served_during_a_flood_and_the_listeners_queues_are_spared() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("ethtool"));
    // What is attached goes when this does.
    let mut wire = None;
    let stand = Stand::up_with(|lab, toml| {
        wire = Some(prepare(lab).expect("the lab can't be prepared"));
        toml.replace("bpffs =", "mode = \"xdp\"\nbpffs =").replace(
            "allow = [\"cloudflare\"]",
            "allow = [\"cloudflare\"]\nsyn_cookies_from = \"1000/s\"\nsyn_cookies_cdn = true",
        )
    })?;
    assert_eq!(flood_at(&stand)?, Value::Null);
    let taken_before = counted(&stand.lab.edge, "SyncookiesRecv")?;

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Done {
        let flooding = scope.spawn(|| stand.lab.internet.run(|| flood(&stop))?);
        let during = || -> Done {
            wait::until_true("the gate answers in place of the listeners", PATIENCE, || {
                Ok(flood_at(&stand)?["challenged"].as_u64() > Some(20_000))
            })?;
            for _ in 0..20 {
                ensure!(stand.visitor.get("/")?.status == 200, "the visitor isn't served");
            }
            ensure!(counted(&stand.lab.edge, "SyncookiesRecv")? > taken_before, "no cookie came back");
            let waiting = half_open(&stand.lab.edge)?;
            let cores = std::thread::available_parallelism()?.get();
            ensure!(waiting <= cores * (QUEUE + 2), "{waiting} connections are half open");
            let status = weir::run(&stand.lab, &["status"])?.stdout;
            ensure!(status.contains("SYN FLOOD at `https`"), "{status}");
            Ok(())
        };
        let during = during();
        stop.store(true, Ordering::Relaxed);
        let sent = flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        during.with_context(|| format!("after {sent} SYNs"))
    })?;

    wait::until_true("the flood is over", PATIENCE, || Ok(flood_at(&stand)?.is_null()))?;
    wait::until_true("the daemon has told both", PATIENCE, || {
        let log = stand.weir.log_text();
        Ok(log.contains("a flood of SYNs has begun") && log.contains("the flood of SYNs is over"))
    })?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let bpffs = stand.lab.bpffs();
    let kernel = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &bpffs.to_string_lossy()])?.stdout;
    assert!(kernel.contains("answered with a SYN cookie") && kernel.contains("no flood now"), "{kernel}");
    Ok(())
}

#[test]
fn where_the_gate_cannot_answer_it_says_so() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml.replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\"]\nsyn_cookies = \"always\"")
    })?;
    let log = stand.weir.log_text();
    assert!(log.contains("not on public for `https`: it is served by"), "{log}");
    let bpffs = stand.lab.bpffs();
    let kernel = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &bpffs.to_string_lossy()])?.stdout;
    assert!(kernel.contains("no SYN cookies from the gate here: only XDP"), "{kernel}");
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

/// Short queues, and a wire that carries what XDP sends back: a veth takes that only where a program receives as well.
/// One that guards nothing lets everything pass.
fn prepare(lab: &Lab) -> anyhow::Result<Ebpf> {
    lab.edge.run(|| std::fs::write("/proc/sys/net/core/somaxconn", QUEUE.to_string()))??;
    let mut ethtool = lab.internet.command("ethtool")?;
    let ran = weir::finish({
        ethtool.args(["-K", "edge", "tx", "off"]);
        ethtool
    })?;
    ensure!(ran.code == 0, "ethtool: {}", ran.stderr);
    // Answers to the invented sources end here, without a word to the edge.
    let route = lab.internet.command("ip").map(|mut ip| {
        ip.args(["route", "add", "blackhole", "104.16.0.0/13"]);
        ip
    })?;
    let ran = weir::finish(route)?;
    ensure!(ran.code == 0, "ip route: {}", ran.stderr);
    lab.internet.run(|| {
        let object = proxy_user::kernel::object_built_in().context("the eBPF object is not built")?;
        let mut programs = Ebpf::load(object)?;
        let receiver: &mut Xdp = programs.program_mut(names::GATE_XDP).context("no program")?.try_into()?;
        receiver.load()?;
        receiver.attach("edge", XdpMode::Driver)?;
        Ok(programs)
    })?
}

/// SYNs from all over a listed prefix, until it is enough. Gives how many.
fn flood(stop: &AtomicBool) -> anyhow::Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    let to = SocketAddrV4::new(EDGE, 0).into();
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        let number = sent as u32;
        let source = Ipv4Addr::from(
            u32::from(Ipv4Addr::new(104, 16, 0, 0)) + (number.wrapping_mul(40_503) & 0x7_ffff),
        );
        // A full queue of the interface is no fault.
        let _ = socket.send_to(&syn(source, 1024 + (number % 60_000) as u16, number), &to);
        sent += 1;
        // Many times the threshold, and not more than the wire here carries both ways.
        if sent.is_multiple_of(RATE / 200) {
            let due = begun + Duration::from_secs(sent) / RATE as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(sent)
}

fn syn(source: Ipv4Addr, port: u16, sequence: u32) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(24);
    tcp.extend(port.to_be_bytes());
    tcp.extend(443_u16.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 180]);
    let addresses = [source.octets(), EDGE.octets()].concat();
    let pseudo = [&addresses[..], &[0, 6, 0, 24], &tcp].concat();
    let sum: u32 = pseudo.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    // The kernel fills in the length and the checksum of this header.
    [&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0][..], &addresses, &tcp].concat()
}

fn flood_at(stand: &Stand) -> anyhow::Result<Value> {
    let status = stand.weir.status()?;
    let entrypoints = status["entrypoints"].as_array().context("no entrypoints")?;
    let https = entrypoints.iter().find(|one| one["name"] == "https").context("no entrypoint `https`")?;
    Ok(https["syn_flood"].clone())
}

/// Connections that were asked for and not finished, as the kernel lists them.
fn half_open(edge: &Namespace) -> anyhow::Result<usize> {
    let table = edge.proc_net("tcp")?;
    Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count())
}

/// One of the kernel's counters for TCP.
fn counted(edge: &Namespace, name: &str) -> anyhow::Result<u64> {
    let table = edge.proc_net("netstat")?;
    let mut rows = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (rows.next().context("no names")?, rows.next().context("no numbers")?);
    let at = names.split_whitespace().position(|one| one == name).with_context(|| format!("no {name}"))?;
    Ok(numbers.split_whitespace().nth(at).context("too few")?.parse()?)
}
