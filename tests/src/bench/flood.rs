//! What dropping costs under a flood, against nftables and ipset.
//!
//! Four veth pairs lead from one namespace to another, and behind each something else drops: a program that does
//! nothing else, the gate, an nftables set at netdev ingress, an ipset in raw PREROUTING; each lets Cloudflare's
//! ranges in. The sender's thread stays on one core, and there the kernel receives as well, so the CPU time of that
//! thread and of the core's ksoftirqd is that of sending, receiving and dropping. Sending is the same for all; what
//! is above the program that only drops is the price of the decision. The rounds are interleaved, and of each
//! dropper the cheapest round counts: whatever else the machine does can only add.

use std::{fs, os::fd::AsRawFd, time::Duration};

use anyhow::{Context, ensure};
use aya::programs::{Xdp, XdpMode};
use nix::{
    libc,
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use proxy_common::{names, verdict::DropReason};
use proxy_user::kernel::Kernel;

use super::{
    gate::{Figure, GateFigures, v4},
    host::{Host, Neighbour, allow, ip, object, program, run as command, with_host},
    lists::{self, Numbers},
};

const ROUNDS: usize = 15;
/// In one round, for one dropper.
const PACKETS: usize = 200_000;
/// Sent with one system call.
const BATCH: usize = 64;
/// Unlisted, and all over the address space.
const SOURCES: usize = 4096;

const DROPPERS: [&str; 4] = ["XDP_DROP", "gate", "nftables netdev ingress", "ipset raw PREROUTING"];

/// Measures, and prints a table. Needs root, the eBPF object, `nft`, `ipset` and `iptables`.
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
    let neighbour = Neighbour::new()?;
    for which in 0..DROPPERS.len() {
        neighbour.connect(&format!("edge{which}"), &format!("sender{which}"))?;
    }
    // Kept until the end: a dropped one detaches.
    let mut floor = aya::Ebpf::load(object()?)?;
    let drop: &mut Xdp = program(&mut floor, names::FLOOR_DROP)?.try_into()?;
    drop.load()?;
    drop.attach("edge0", XdpMode::Driver)?;
    let mut kernel = Kernel::open(&host.bpffs)?;
    allow(&mut kernel, 1, Some("edge1"), lists::cloudflare())?;
    let ranges: Vec<String> =
        lists::cloudflare().iter().filter(|net| net.addr().is_ipv4()).map(ToString::to_string).collect();
    nftables("edge2", &ranges)?;
    ipset("edge3", &ranges)?;

    let mut cheapest = [f64::MAX; 4];
    for round in 0..=ROUNDS {
        for (which, cheapest) in cheapest.iter_mut().enumerate() {
            let before = dropped(host, which)?;
            let interface = format!("sender{which}");
            let spent = neighbour.run(move || flood(&interface))??;
            let arrived = dropped(host, which)? - before;
            // The kernel sends a few of its own: neighbour discovery, multicast reports.
            ensure!(
                (PACKETS as u64..PACKETS as u64 + 100).contains(&arrived),
                "{} dropped {arrived} of {PACKETS} packets: the figures would not be its own",
                DROPPERS[which]
            );
            // The first warms up.
            if round > 0 {
                *cheapest = cheapest.min(spent.as_nanos() as f64 / PACKETS as f64);
            }
        }
    }
    Ok(cheapest)
}

/// What was dropped at the receiving end, by whoever drops there.
fn dropped(host: &Host, which: usize) -> anyhow::Result<u64> {
    match which {
        1 => {
            let status = proxy_user::kernel::observe(&host.bpffs)?.context("the gate is gone")?;
            let of = status.entrypoints.iter().find(|entry| entry.name == "bench");
            Ok(of.context("the gate counts nothing")?.dropped[DropReason::NotListed.name()].packets)
        }
        // Received there, and nothing comes out at the other side.
        _ => {
            let text = fs::read_to_string("/proc/thread-self/net/dev")?;
            let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("edge{which}:")));
            let packets = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(packets.context("no such interface")?.parse()?)
        }
    }
}

/// Sends, and gives the CPU time that this took on the core, in the thread and in the kernel's.
fn flood(interface: &str) -> anyhow::Result<Duration> {
    let core = stay_on_a_core()?;
    let mut packets = packets();
    let before = cpu_time(core)?;
    send(interface, &mut packets, PACKETS, |_| true)?;
    Ok(cpu_time(core)? - before)
}

/// The second one, if there is one: the first usually serves interrupts.
pub(super) fn stay_on_a_core() -> anyhow::Result<usize> {
    let core = 1.min(std::thread::available_parallelism()?.get() - 1);
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    Ok(core)
}

/// Sends so many packets, these over and over, as long as `go_on` (which is told how many were sent) says so.
pub(super) fn send(
    interface: &str,
    packets: &mut [Vec<u8>],
    count: usize,
    mut go_on: impl FnMut(usize) -> bool,
) -> anyhow::Result<()> {
    // SAFETY: a plain system call with constants.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: new and ours.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket) };
    let one: libc::c_int = 1;
    // SAFETY: the kernel reads the four bytes of `one`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const one).cast(),
            4,
        )
    };
    ensure!(set == 0, "bypass the queue: {}", std::io::Error::last_os_error());
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0x0800_u16.to_be(),
        sll_ifindex: nix::net::if_::if_nametoindex(interface)? as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let mut parts: Vec<libc::iovec> = packets
        .iter_mut()
        .map(|packet| libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: (&raw const address).cast_mut().cast(),
                msg_namelen: size_of::<libc::sockaddr_ll>() as u32,
                msg_iov: part,
                msg_iovlen: 1,
                msg_control: std::ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        })
        .collect();
    let (mut sent, different) = (0, messages.len());
    while sent < count && go_on(sent) {
        let from = sent % different;
        let batch = &mut messages[from..(from + BATCH.min(count - sent)).min(different)];
        // SAFETY: the messages point to packets and an address that outlive the call.
        let now = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), batch.len() as u32, 0) };
        ensure!(now > 0, "sending: {}", std::io::Error::last_os_error());
        sent += now as usize;
    }
    Ok(())
}

fn packets() -> Vec<Vec<u8>> {
    let listed = lists::cloudflare();
    let mut numbers = Numbers(7);
    let sources = std::iter::repeat_with(|| std::net::Ipv4Addr::from(numbers.draw() as u32));
    sources
        // The stack's routes must not decide before an ipset does.
        .filter(|source| (1..224).contains(&source.octets()[0]) && source.octets()[0] != 127)
        .filter(|source| !listed.iter().any(|net| net.contains(&std::net::IpAddr::V4(*source))))
        .take(SOURCES)
        .map(|source| packet(source, 443))
        .collect()
}

/// From the sender's end of a veth pair to the other.
pub(super) fn packet(source: std::net::Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = v4(&source.to_string(), port);
    packet[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    let sum: u32 = packet[14..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    packet
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
         chain ingress {{ type filter hook ingress device \"{interface}\" priority 0; policy accept; \
         ip daddr 203.0.113.1 tcp dport 443 ip saddr != @allowed drop; }}\n}}",
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
