//! What dropping costs under a flood, against nftables and ipset.
//!
//! Four veth pairs lead from one namespace to another, and behind each something else drops: a program that does
//! nothing else, the gate, an nftables set at netdev ingress, an ipset in raw PREROUTING; each lets Cloudflare's
//! ranges in.
//!
//! Frames come as a driver has them. A socket's packets are socket buffers before any dropper sees them, and XDP on a
//! veth has to copy those first; so the kernel runs a program over bare frames (BPF_PROG_TEST_RUN with live frames),
//! and the program redirects them into the pair. At its other end XDP sees them as it does on a network port, and a
//! socket buffer is made only of those that no XDP program drops: who drops later pays for it, as on a network port.
//!
//! The sender's thread stays on one core, and there the kernel receives as well: sending and receiving take turns, so
//! nothing waits and nothing overflows. What a flood costs is the time that passes on that core, without the time in
//! which the thread waited for it, and with the time in which ksoftirqd ran meanwhile. Sending is the same for all; what
//! is above the program that only drops is the price of the decision. The rounds are interleaved, and of each dropper
//! the cheapest round counts: whatever else the machine does can only add. A round counts only if the dropper's own
//! counter has every frame that was sent.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::{
    Ebpf, TestRun, TestRunAttrs, TestRunOptions,
    programs::{Xdp, XdpMode},
};
use proxy_common::{
    flood::{INTERFACE, LENGTH, SOURCES, SUM, source},
    names,
    verdict::DropReason,
};
use proxy_user::kernel::Kernel;

use super::{
    gate::{Figure, GateFigures},
    host::{Host, Neighbour, allow, ip, object, program, run as command, with_host},
    lists,
    sending::{packet, stay_on_a_core, sum},
};

const ROUNDS: usize = 15;
/// In one round, for one dropper.
const PACKETS: u32 = 200_000;
/// Redirected before they are received: what a driver takes off its ring at once. A veth's ring holds 256.
const BATCH: u32 = 64;
/// Rounds in which a frame was lost don't count. So many of them, and something is wrong.
const SPOILT: usize = 30;

const DROPPERS: [&str; 4] = ["XDP_DROP", "gate", "nftables netdev ingress", "ipset raw PREROUTING"];

/// Measures, and prints a table. Needs root, the eBPF object, `ethtool`, `nft`, `ipset` and `iptables`.
pub fn run() -> anyhow::Result<GateFigures> {
    let costs = with_host(measure)?;
    let above = |which: usize| costs[which] - costs[0];
    let mut figures: Vec<_> = DROPPERS
        .iter()
        .zip(costs)
        .map(|(name, nanoseconds)| Figure { name: format!("flood: {name}"), nanoseconds })
        .collect();
    for (which, name) in DROPPERS.iter().enumerate().skip(1) {
        figures.push(Figure { name: format!("flood, above XDP_DROP: {name}"), nanoseconds: above(which) });
    }
    let ratios = vec![("flood_vs_nft", above(1) / above(2)), ("flood_vs_ipset", above(1) / above(3))];
    anstream::println!("\n{:<46} {:>6}", "flood, one packet sent and dropped", "ns");
    for Figure { name, nanoseconds } in &figures {
        anstream::println!("{name:<46} {nanoseconds:>6.0}");
    }
    for (name, ratio) in &ratios {
        anstream::println!("{name:<46} {ratio:>15.3}");
    }
    Ok(GateFigures { figures, ratios })
}

fn measure(host: &Host) -> anyhow::Result<[f64; 4]> {
    let listed = lists::cloudflare();
    let stranger = |number| std::net::IpAddr::V4(source(number).into());
    ensure!(
        !(0..SOURCES).any(|number| listed.iter().any(|net| net.contains(&stranger(number)))),
        "a source of the flood is listed: it would not be dropped"
    );
    let neighbour = Neighbour::new()?;
    for which in 0..DROPPERS.len() {
        neighbour.connect(&format!("edge{which}"), &format!("sender{which}"))?;
    }
    // Kept until the end: a dropped one detaches.
    let mut programs = aya::Ebpf::load(object()?)?;
    let drop: &mut Xdp = program(&mut programs, names::FLOOR_DROP)?.try_into()?;
    drop.load()?;
    drop.attach("edge0", XdpMode::Driver)?;
    let send: &mut Xdp = program(&mut programs, names::FLOOD_SEND)?.try_into()?;
    send.load()?;
    let mut kernel = Kernel::open(&host.bpffs)?;
    allow(&mut kernel, 1, Some("edge1"), listed.clone())?;
    let ranges: Vec<String> =
        listed.iter().filter(|net| net.addr().is_ipv4()).map(ToString::to_string).collect();
    for edge in ["edge2", "edge3"] {
        // Only then does a veth without a program take frames that are no socket buffers. Ports have it on.
        command("ethtool", &["-K", edge, "gro", "on"])?;
    }
    nftables("edge2", &ranges)?;
    ipset("edge3", &ranges)?;

    let mut cheapest = [f64::MAX; 4];
    let (mut round, mut spoilt) = (0, 0);
    while round <= ROUNDS {
        let mut spent = [0.0; 4];
        let mut lost = 0;
        for (which, spent) in spent.iter_mut().enumerate() {
            let before = dropped(host, which)?;
            let interface = format!("sender{which}");
            let flooded = neighbour.run(move || (flood(&mut programs, &interface), programs))?;
            programs = flooded.1;
            *spent = flooded.0?.as_nanos() as f64 / f64::from(PACKETS);
            let counted = dropped(host, which)? - before;
            // The kernel sends a few of its own, which the program that drops everything counts too.
            ensure!(
                counted < u64::from(PACKETS) + 100,
                "{} has dropped {counted} of {PACKETS} frames",
                DROPPERS[which]
            );
            lost += u64::from(PACKETS).saturating_sub(counted);
        }
        if lost > 0 {
            spoilt += 1;
            ensure!(
                spoilt < SPOILT,
                "frames get lost before they are dropped ({lost} in the last round): the figures would not be theirs"
            );
            continue;
        }
        // The first warms up.
        if round > 0 {
            cheapest.iter_mut().zip(spent).for_each(|(cheapest, spent)| *cheapest = cheapest.min(spent));
        }
        round += 1;
    }
    Ok(cheapest)
}

/// What was dropped at the receiving end, by the counter of whoever drops there.
fn dropped(host: &Host, which: usize) -> anyhow::Result<u64> {
    match which {
        // Its program counts nothing and drops everything that it sees; a veth counts what its program sees.
        0 => {
            let text = fs::read_to_string("/proc/thread-self/net/dev")?;
            let line = text.lines().find_map(|line| line.trim().strip_prefix("edge0:"));
            let packets = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(packets.context("no such interface")?.parse()?)
        }
        1 => {
            let status = proxy_user::kernel::observe(&host.bpffs)?.context("the gate is gone")?;
            let of = status.entrypoints.iter().find(|entry| entry.name == "bench");
            Ok(of.context("the gate counts nothing")?.dropped[DropReason::NotListed.name()].packets)
        }
        2 => {
            let said = said_by("nft list counter netdev bench dropped")?;
            let counted = said.split_whitespace().skip_while(|word| *word != "packets").nth(1);
            Ok(counted.context("nft names no counter")?.parse()?)
        }
        _ => {
            let said = said_by("iptables -t raw -L PREROUTING -v -x -n")?;
            let rule = said.lines().find(|line| line.contains("match-set"));
            let counted = rule.and_then(|line| line.split_whitespace().next());
            Ok(counted.context("iptables has no such rule")?.parse()?)
        }
    }
}

fn said_by(command: &str) -> anyhow::Result<String> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output()?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Sends, and gives the time that this took on the core.
fn flood(programs: &mut Ebpf, interface: &str) -> anyhow::Result<Duration> {
    let core = stay_on_a_core()?;
    let send: &mut Xdp = program(programs, names::FLOOD_SEND)?.try_into()?;
    let frame = frame(interface)?;
    let (waited, softirqs, begun) = (waited()?, ksoftirqd(core)?, Instant::now());
    send.test_run(TestRunOptions {
        data_in: Some(&frame),
        repeat: PACKETS,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    })?;
    let passed = begun.elapsed();
    let waited = self::waited()? - waited;
    Ok((passed + ksoftirqd(core)? - softirqs).saturating_sub(waited))
}

/// What [`names::FLOOD_SEND`] makes its frames of.
fn frame(interface: &str) -> anyhow::Result<Vec<u8>> {
    let mut frame = packet(std::net::Ipv4Addr::UNSPECIFIED, 443);
    ensure!(frame.len() == LENGTH, "the sender expects another frame");
    frame[24..26].fill(0);
    let sum = sum(&frame);
    frame[SUM..SUM + 4].copy_from_slice(&sum.to_ne_bytes());
    let index = nix::net::if_::if_nametoindex(interface)?;
    frame[INTERFACE..INTERFACE + 4].copy_from_slice(&index.to_ne_bytes());
    Ok(frame)
}

/// For how long this thread could have run, and others did.
fn waited() -> anyhow::Result<Duration> {
    scheduled("/proc/thread-self/schedstat", 1)
}

/// For how long the core's ksoftirqd ran.
fn ksoftirqd(core: usize) -> anyhow::Result<Duration> {
    let wanted = format!("ksoftirqd/{core}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == wanted) {
            return scheduled(&path.join("schedstat").to_string_lossy(), 0);
        }
    }
    anyhow::bail!("no {wanted}: what the kernel receives can't be measured")
}

fn scheduled(path: &str, column: usize) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanoseconds = text.split_whitespace().nth(column).context("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn nftables(interface: &str, ranges: &[String]) -> anyhow::Result<()> {
    let script = format!(
        "table netdev bench {{\n set allowed {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}\n \
         counter dropped {{}}\n chain ingress {{ type filter hook ingress device \"{interface}\" priority 0; policy accept; \
         ip daddr 203.0.113.1 tcp dport 443 ip saddr != @allowed counter name dropped drop; }}\n}}",
        ranges.join(", ")
    );
    command("nft", &[&script])
}

fn ipset(interface: &str, ranges: &[String]) -> anyhow::Result<()> {
    ip(&format!("addr add 203.0.113.1/24 dev {interface}"))?;
    command("ipset", &["create", "allowed", "hash:net"])?;
    for range in ranges {
        command("ipset", &["add", "allowed", range])?;
    }
    let rule =
        "-t raw -A PREROUTING -p tcp -d 203.0.113.1 --dport 443 -m set ! --match-set allowed src -j DROP";
    command("iptables", &rule.split_whitespace().collect::<Vec<_>>())
}
