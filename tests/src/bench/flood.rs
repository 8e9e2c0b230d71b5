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
//! nothing waits and nothing overflows, and the CPU time of that thread and of the core's ksoftirqd is that of sending,
//! receiving and dropping. Sending is the same for all; what is above the program that only drops is the price of the
//! decision. The rounds are short and interleaved, and of each dropper the cheapest round counts: whatever else the
//! machine does can only add. A round counts only if the droppers' own counters have every frame that was sent.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, ensure};
use aya::{
    Ebpf, TestRun, TestRunAttrs, TestRunOptions,
    programs::{Xdp, XdpMode},
};
use nix::time::{ClockId, clock_gettime};
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

const ROUNDS: usize = 60;
/// In one round, for one dropper.
const PACKETS: u32 = 40_000;
/// Redirected before they are received: what a driver takes off its ring at once. A veth's ring holds 256.
const BATCH: u32 = 64;
/// Rounds in which a frame was lost don't count. So many of them, and something is wrong.
const SPOILT: usize = 60;

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
    let mut is_accounted = false;
    while round <= ROUNDS {
        let mut spent = [0.0; 4];
        let mut lost = 0;
        for place in 0..DROPPERS.len() {
            // Each comes after each other once.
            let which = (place + round) % DROPPERS.len();
            let before = dropped(host, which)?;
            let interface = format!("sender{which}");
            let flooded = neighbour.run(move || (flood(&mut programs, &interface), programs))?;
            programs = flooded.1;
            let Spent { cpu, clock } = flooded.0?;
            spent[which] = cpu;
            is_accounted |= cpu > clock / 2.0;
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
    ensure!(is_accounted, "this kernel doesn't count what interrupts do as the time of whom they interrupt");
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

/// For one frame, in nanoseconds.
struct Spent {
    cpu: f64,
    /// What passed by the clock, in the kernel's own measure of its loop. More than `cpu` where others ran as well.
    clock: f64,
}

/// Sends, and gives what this took on the core.
fn flood(programs: &mut Ebpf, interface: &str) -> anyhow::Result<Spent> {
    let core = stay_on_a_core()?;
    let send: &mut Xdp = program(programs, names::FLOOD_SEND)?.try_into()?;
    let frame = frame(interface)?;
    let before = cpu_time(core)?;
    let ran = send.test_run(TestRunOptions {
        data_in: Some(&frame),
        repeat: PACKETS,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    })?;
    let spent = cpu_time(core)? - before;
    let of_one = |duration: Duration| duration.as_nanos() as f64;
    Ok(Spent { cpu: of_one(spent) / f64::from(PACKETS), clock: of_one(ran.duration) })
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

/// Of this thread and of the core's ksoftirqd. What the kernel receives within a system call counts as the thread's.
fn cpu_time(core: usize) -> anyhow::Result<Duration> {
    let thread = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    let wanted = format!("ksoftirqd/{core}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == wanted) {
            let text = fs::read_to_string(path.join("schedstat"))?;
            let ran = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
            return Ok(thread + Duration::from_nanos(ran));
        }
    }
    anyhow::bail!("no {wanted}: what the kernel receives can't be measured")
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

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::Ipv4Addr};

    use proxy_common::flood::checksum;

    use super::*;

    #[test]
    fn the_sources_are_different_strangers_whom_the_stack_would_not_refuse() {
        let listed = lists::cloudflare();
        let sources: HashSet<Ipv4Addr> = (0..SOURCES).map(|number| source(number).into()).collect();
        assert_eq!(sources.len(), SOURCES as usize);
        for source in sources {
            assert!(
                !source.is_loopback() && !source.is_multicast() && (1..224).contains(&source.octets()[0])
            );
            assert!(!listed.iter().any(|net| net.contains(&std::net::IpAddr::V4(source))), "{source}");
        }
    }

    #[test]
    fn a_header_with_its_checksum_adds_up_to_nothing() {
        let packet = packet(Ipv4Addr::new(198, 51, 100, 7), 443);
        assert_eq!(checksum(sum(&packet)), 0);
        assert_ne!(packet[24..26], [0, 0]);
    }
}
