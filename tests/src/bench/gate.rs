//! What the gate costs, in ns per packet, against an XDP program that only drops.
//!
//! BPF_PROG_TEST_RUN runs a program many times over one packet in the kernel; the fastest of several runs is
//! what the program costs when nothing else disturbs. One packet over and over is kind to caches; the same
//! holds for the floor that it is compared with.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use aya::{
    TestRun, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use proxy_common::names;
use proxy_user::{
    config::model::{Rate, SourceLimit},
    kernel::{Kernel, NamedList},
};

use super::{
    host::{EDGE_V4, EDGE_V6, Host, allow, guard, object, program, with_host},
    lists,
};

/// Repeats within one run of the kernel's, and runs, of which the fastest counts.
const REPEAT: u32 = 1_000_000;
const RUNS: usize = 9;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;

/// One measurement.
#[derive(Debug, Clone)]
pub struct Figure {
    pub name: String,
    pub nanoseconds: f64,
}

#[derive(Debug, Clone)]
pub struct GateFigures {
    pub figures: Vec<Figure>,
    pub ratios: Vec<(&'static str, f64)>,
}

/// What one list costs at XDP, IPv4.
struct OfList {
    listed: f64,
    unlisted: f64,
    neighbour: f64,
    /// From another source each time, in nanoseconds.
    scattered: [f64; 2],
}

/// Measures, and prints a table. Needs root and the eBPF object.
pub fn run() -> anyhow::Result<GateFigures> {
    let figures = with_host(measure)?;
    print(&figures);
    Ok(figures)
}

fn measure(host: &Host) -> anyhow::Result<GateFigures> {
    let mut figures = Vec::new();
    let mut floors = aya::Ebpf::load(object()?)?;
    let mut floor = |name: &str, of: &str, packet: &[u8]| -> anyhow::Result<f64> {
        let floor: &mut Xdp = program(&mut floors, name)?.try_into()?;
        floor.load()?;
        let nanoseconds = fastest(floor, packet, Some(XDP_DROP))?;
        figures.push(Figure { name: format!("floor: {of}"), nanoseconds });
        Ok(nanoseconds)
    };
    let drop = floor(names::FLOOR_DROP, "returns XDP_DROP", &v4("198.51.100.10", 443))?;
    floor(names::FLOOR_SCATTERED, "IPv4 gets another source, XDP_DROP", &v4("198.51.100.10", 443))?;
    let cloudflare = with_list(host, "Cloudflare (22)", lists::cloudflare(), &mut figures)?;
    with_list(host, "2 x 10,000 prefixes", lists::spread(10_000), &mut figures)?;
    let million = with_list(host, "2 x 1,000,000 prefixes", lists::spread(1_000_000), &mut figures)?;
    let limited = limited(host, &mut figures)?;
    let ratios = vec![
        ("ratelimit_vs_drop", limited / drop),
        ("full_gate_vs_drop", cloudflare.listed / drop),
        ("unlisted_vs_drop", cloudflare.unlisted / drop),
        ("neighbour_vs_drop", cloudflare.neighbour / drop),
        ("million_vs_cloudflare", million.scattered[0] / cloudflare.scattered[0]),
        ("million_vs_cloudflare_v6", million.scattered[1] / cloudflare.scattered[1]),
    ];
    Ok(GateFigures { figures, ratios })
}

/// Measures the gate with one list in it.
fn with_list(
    host: &Host,
    list: &str,
    prefixes: Vec<ipnet::IpNet>,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<OfList> {
    let mut kernel = Kernel::open(&host.bpffs)?;
    allow(&mut kernel, 1, None, prefixes)?;
    let mut for_xdp = host.programs()?;
    let xdp: &mut Xdp = program(&mut for_xdp, names::GATE_XDP)?.try_into()?;
    xdp.load()?;
    let mut for_tc = host.programs()?;
    let tc: &mut SchedClassifier = program(&mut for_tc, names::GATE_TC)?.try_into()?;
    tc.load()?;
    let mut for_scattered = host.programs()?;
    let scattered: &mut Xdp = program(&mut for_scattered, names::GATE_SCATTERED)?.try_into()?;
    scattered.load()?;

    let cases = [
        ("IPv4 unlisted", v4("198.51.100.10", 443), XDP_DROP, TC_ACT_SHOT),
        // In the same /16 as a listed prefix: the sieve can't tell.
        ("IPv4 unlisted neighbour", v4("173.245.1.1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv4 listed", v4("104.16.1.1", 443), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv4 unguarded", v4("198.51.100.10", 22), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv6 unlisted", v6("2001:db8:bad::1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv6 unlisted neighbour", v6("2606:bad::1", 443), XDP_DROP, TC_ACT_SHOT),
        ("IPv6 listed", v6("2606:4700::1", 443), XDP_PASS, TC_ACT_UNSPEC),
        ("IPv6 unguarded", v6("2001:db8:bad::1", 22), XDP_PASS, TC_ACT_UNSPEC),
    ];
    let mut of = OfList { listed: 0.0, unlisted: 0.0, neighbour: 0.0, scattered: [0.0; 2] };
    for (name, packet, at_xdp, at_tc) in cases {
        // A long list may hold the neighbours too.
        let strict = !name.ends_with("neighbour");
        let nanoseconds = fastest(xdp, &packet, strict.then_some(at_xdp))?;
        match name {
            "IPv4 unlisted" => of.unlisted = nanoseconds,
            "IPv4 unlisted neighbour" => of.neighbour = nanoseconds,
            "IPv4 listed" => of.listed = nanoseconds,
            _ => {}
        }
        figures.push(Figure { name: format!("xdp, {list}, {name}"), nanoseconds });
        let nanoseconds = fastest(tc, &packet, strict.then_some(at_tc))?;
        figures.push(Figure { name: format!("tcx, {list}, {name}"), nanoseconds });
    }
    let packets = [("IPv4", v4("198.51.100.10", 443)), ("IPv6", v6("2001:db8:bad::1", 443))];
    for (figure, (name, packet)) in of.scattered.iter_mut().zip(packets) {
        *figure = fastest(scattered, &packet, None)?;
        figures.push(Figure { name: format!("xdp, {list}, {name} from anywhere"), nanoseconds: *figure });
    }
    Ok(of)
}

/// Measures the gate where each source's packets and connections are limited, so high that nothing is dropped. Gives what
/// a known source's SYN costs.
fn limited(host: &Host, figures: &mut Vec<Figure>) -> anyhow::Result<f64> {
    let most = Rate { count: 1_000_000_000, per: Duration::from_secs(1), burst: 10_000_000 };
    let limit = Some(SourceLimit { packets: Some(most), connections: Some(most), cdn: false });
    let mut kernel = Kernel::open(&host.bpffs)?;
    let list = NamedList { name: "bench".into(), cdn: false, prefixes: lists::cloudflare().into() };
    guard(&mut kernel, 1, None, vec![list], limit)?;
    let mut programs = host.programs()?;
    let xdp: &mut Xdp = program(&mut programs, names::GATE_XDP)?.try_into()?;
    xdp.load()?;
    let known = fastest(xdp, &v4("104.16.1.1", 443), Some(XDP_PASS))?;
    figures.push(Figure { name: "xdp, limited, IPv4 listed".into(), nanoseconds: known });

    guard(&mut kernel, 2, None, Vec::new(), limit)?;
    let mut programs = host.programs()?;
    let scattered: &mut Xdp = program(&mut programs, names::GATE_SCATTERED)?.try_into()?;
    scattered.load()?;
    let nanoseconds = fastest(scattered, &v4("198.51.100.10", 443), Some(XDP_PASS))?;
    figures.push(Figure { name: "xdp, limited, IPv4, every source new".into(), nanoseconds });
    Ok(known)
}

/// `expected`: what the program must give, if that is always the same.
fn fastest<P>(program: &P, packet: &[u8], expected: Option<u32>) -> anyhow::Result<f64>
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
        let given = ran.return_value;
        ensure!(
            expected.is_none_or(|expected| given == expected),
            "the program gave {given}, not {expected:?}"
        );
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
    for (name, ratio) in &figures.ratios {
        anstream::println!("{name:<46} {ratio:>15.2}");
    }
}

pub(super) fn v4(source: &str, port: u16) -> Vec<u8> {
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
