//! What the gate costs, in ns per packet, against an XDP program that only drops.
//!
//! BPF_PROG_TEST_RUN runs a program many times over one packet in the kernel; the fastest of several runs is
//! what the program costs when nothing else disturbs. One packet over and over is kind to caches; the same
//! holds for the floor that it is compared with.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    programs::{Program, SchedClassifier, Xdp},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use proxy_common::names;
use proxy_user::{
    config::model::KernelMode,
    kernel::{Desired, Guarded, Kernel, NamedList, Protocol, object_built_in},
};

/// Repeats within one run of the kernel's, and runs, of which the fastest counts.
const REPEAT: u32 = 1_000_000;
const RUNS: usize = 9;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;

const EDGE_V4: &str = "203.0.113.1:443";
const EDGE_V6: &str = "[2001:db8:ed9e::1]:443";

/// The ranges that Cloudflare publishes, as of 2026.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// One measurement.
#[derive(Debug, Clone)]
pub struct Figure {
    pub name: String,
    pub nanoseconds: f64,
}

#[derive(Debug, Clone)]
pub struct GateFigures {
    pub figures: Vec<Figure>,
    /// An unlisted IPv4 packet through the XDP gate, over the program that only drops.
    pub full_gate_vs_drop: f64,
    /// The same for a stranger whose first 16 bits some listed prefix has.
    pub neighbour_vs_drop: f64,
}

/// Measures, and prints a table. Needs root and the eBPF object.
pub fn run() -> anyhow::Result<GateFigures> {
    // In a thread of its own, whose mounts vanish with it.
    let measured = std::thread::spawn(measure).join();
    let figures = measured.map_err(|_| anyhow::anyhow!("the measuring thread panicked"))??;
    print(&figures);
    Ok(figures)
}

fn measure() -> anyhow::Result<GateFigures> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
        .context("a mount namespace of its own: needs root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let folder = tempfile::tempdir()?;
    mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)?;

    let mut figures = Vec::new();
    let floor = floor()?;
    figures.push(Figure { name: "floor: returns XDP_DROP".into(), nanoseconds: floor });
    let (unlisted, neighbour) = with_list(folder.path(), "Cloudflare (22)", cloudflare(), &mut figures)?;
    with_list(folder.path(), "10,000 prefixes", ten_thousand(), &mut figures)?;
    Ok(GateFigures { figures, full_gate_vs_drop: unlisted / floor, neighbour_vs_drop: neighbour / floor })
}

fn floor() -> anyhow::Result<f64> {
    let mut ebpf = Ebpf::load(object()?)?;
    let program: &mut Xdp = program(&mut ebpf, names::FLOOR_DROP)?.try_into()?;
    program.load()?;
    fastest(program, &v4("198.51.100.10", 443), XDP_DROP)
}

/// Measures the gate with one list in it; gives the figures for an unlisted IPv4 packet at XDP and for one from
/// beside a listed range.
fn with_list(
    bpffs: &Path,
    list: &str,
    prefixes: Vec<ipnet::IpNet>,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<(f64, f64)> {
    let mut kernel = Kernel::open(bpffs)?;
    kernel.apply(&Desired {
        generation: 1,
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        guarded: vec![Guarded {
            protocols: vec![Protocol::Tcp],
            shadow: false,
            entrypoint: "bench".into(),
            bind: vec![EDGE_V4.parse()?, EDGE_V6.parse()?],
            lists: vec![NamedList { name: "bench".into(), prefixes: prefixes.into() }],
        }],
    })?;
    // The same programs once more, over the pinned maps that were just filled.
    let maps = bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS);
    let mut loader = EbpfLoader::new();
    for name in names::GATE_MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    let mut for_xdp = loader.load(object()?)?;
    let xdp: &mut Xdp = program(&mut for_xdp, names::GATE_XDP)?.try_into()?;
    xdp.load()?;
    let mut for_tc = loader.load(object()?)?;
    let tc: &mut SchedClassifier = program(&mut for_tc, names::GATE_TC)?.try_into()?;
    tc.load()?;

    let cases = [
        ("IPv4 unlisted", v4("198.51.100.10", 443), XDP_DROP, TC_ACT_SHOT),
        // In the same /16 as a listed prefix: the sieve can't tell, the trie must.
        ("IPv4 unlisted neighbour", v4("173.245.1.1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv4 listed", v4("104.16.1.1", 443), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv4 unguarded", v4("198.51.100.10", 22), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv6 unlisted", v6("2001:db8:bad::1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv6 unlisted neighbour", v6("2606:bad::1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv6 listed", v6("2606:4700::1", 443), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv6 unguarded", v6("2001:db8:bad::1", 22), XDP_PASS, TC_ACT_UNSPEC),
    ];
    let (mut unlisted, mut neighbour) = (0.0, 0.0);
    for (name, packet, at_xdp, at_tc) in cases {
        let nanoseconds = fastest(xdp, &packet, at_xdp)?;
        match name {
            "IPv4 unlisted" => unlisted = nanoseconds,
            "IPv4 unlisted neighbour" => neighbour = nanoseconds,
            _ => {}
        }
        figures.push(Figure { name: format!("xdp, {list}, {name}"), nanoseconds });
        let nanoseconds = fastest(tc, &packet, at_tc)?;
        figures.push(Figure { name: format!("tcx, {list}, {name}"), nanoseconds });
    }
    Ok((unlisted, neighbour))
}

fn object() -> anyhow::Result<&'static [u8]> {
    object_built_in().context("the eBPF object is not built; run `cargo xtask build`")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the eBPF object"))
}

fn fastest<P>(program: &P, packet: &[u8], expected: u32) -> anyhow::Result<f64>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::TestRunResult>,
{
    let mut fastest = f64::MAX;
    for _ in 0..RUNS {
        let ran = program.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat: REPEAT,
            ..TestRunOptions::default()
        })?;
        ensure!(ran.return_value == expected, "the program gave {}, not {expected}", ran.return_value);
        // The kernel gives the mean of a run, in whole nanoseconds.
        fastest = fastest.min(ran.duration.as_nanos() as f64);
    }
    Ok(fastest)
}

fn print(figures: &GateFigures) {
    let floor = figures.figures.first().map_or(1.0, |floor| floor.nanoseconds);
    anstream::println!("{:<46} {:>6} {:>8}", "gate, one packet", "ns", "÷ floor");
    for Figure { name, nanoseconds } in &figures.figures {
        anstream::println!("{name:<46} {nanoseconds:>6.0} {:>8.2}", nanoseconds / floor);
    }
}

fn cloudflare() -> Vec<ipnet::IpNet> {
    CLOUDFLARE.iter().filter_map(|prefix| prefix.parse().ok()).collect()
}

/// Cloudflare's, and others in between up to ten thousand of each family: /24s and /48s of documentation's
/// and benchmarks' neighbourhood, where none of the measured sources is.
fn ten_thousand() -> Vec<ipnet::IpNet> {
    let v4 = (0..10_000_u32).filter_map(|n| {
        // 11.0.0.0 upwards, every other /24.
        ipnet::Ipv4Net::new((0x0b00_0000 + n * 512).into(), 24).ok().map(ipnet::IpNet::V4)
    });
    let v6 = (0..10_000_u128).filter_map(|n| {
        let address = (0x2a00_u128 << 112) + (n << 81);
        ipnet::Ipv6Net::new(address.into(), 48).ok().map(ipnet::IpNet::V6)
    });
    cloudflare().into_iter().chain(v4).chain(v6).collect()
}

fn v4(source: &str, port: u16) -> Vec<u8> {
    let edge: SocketAddr = EDGE_V4.parse().expect("a constant");
    let octets = |address: &str| address.parse::<std::net::Ipv4Addr>().expect("a constant").octets();
    let mut packet = vec![0; 12];
    packet.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(&edge.ip().to_string()));
    with_tcp(packet, port)
}

fn v6(source: &str, port: u16) -> Vec<u8> {
    let edge: SocketAddr = EDGE_V6.parse().expect("a constant");
    let octets = |address: &str| address.parse::<std::net::Ipv6Addr>().expect("a constant").octets();
    let mut packet = vec![0; 12];
    packet.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    packet.extend(octets(source));
    packet.extend(octets(&edge.ip().to_string()));
    with_tcp(packet, port)
}

/// A SYN's header.
fn with_tcp(mut packet: Vec<u8>, port: u16) -> Vec<u8> {
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}
