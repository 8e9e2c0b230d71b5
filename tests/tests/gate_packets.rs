//! The gate's verdicts: a table of packets, each judged by the kernel at XDP and at tcx.
//!
//! `docs/gate.md` says the same to operators. A verdict that changes here changes there.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use aya::{
    Ebpf, TestRun, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use proxy_common::{names, verdict::DropReason};
use proxy_user::{
    config::model::KernelMode,
    kernel::{Desired, Guarded, Kernel, KernelStatus, NamedList},
};

#[path = "support/packet.rs"]
mod packet;
#[path = "support/scratch.rs"]
mod scratch;

use packet::{Packet, TCP, UDP, ethernet, ipv4, ipv6};
use scratch::{in_scratch, programs_over};

const EDGE: &str = "203.0.113.1";
const EDGE6: &str = "2001:db8:ed9e::1";
const LISTED: &str = "192.0.2.10";
const LISTED6: &str = "2001:db8:c1::10";
const STRANGER: &str = "198.51.100.10";
const STRANGER6: &str = "2001:db8:bad::10";

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;
const MORE_FRAGMENTS: u16 = 0x2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Passed, and counted nowhere: none of the gate's business.
    Untouched,
    /// Passed, and counted for `https`.
    Admitted,
    /// Dropped, and counted for `https`.
    Dropped(DropReason),
    /// Dropped, and counted for the address: the port can't be read.
    DroppedForAddress(DropReason),
}

use DropReason::{ExtensionHeaders, NotListed, Truncated};
use Verdict::{Admitted, Dropped, DroppedForAddress, Untouched};

#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, Packet, Verdict)> {
    let tcp4 = |source: &str, port| ipv4(source, EDGE, TCP).tcp(port, SYN);
    let tcp6 = |source: &str, port| ipv6(source, EDGE6, TCP).tcp(port, SYN);
    let tagged = |tags: &[u16]| {
        let inner = tags.iter().skip(1).copied().chain([0x0800]);
        inner.fold(ethernet(tags[0]), Packet::vlan)
    };
    vec![
        // The plain cases.
        ("v4, listed", tcp4(LISTED, 443), Admitted),
        ("v4, unlisted", tcp4(STRANGER, 443), Dropped(NotListed)),
        ("v6, listed", tcp6(LISTED6, 443), Admitted),
        ("v6, unlisted", tcp6(STRANGER6, 443), Dropped(NotListed)),
        // No connection tracking: a packet in the middle is judged like the first.
        ("v4, unlisted, ACK", ipv4(STRANGER, EDGE, TCP).tcp(443, ACK), Dropped(NotListed)),
        ("v4, listed, ACK", ipv4(LISTED, EDGE, TCP).tcp(443, ACK), Admitted),
        // Not guarded.
        ("v4, SSH", tcp4(STRANGER, 22), Untouched),
        ("v6, SSH", tcp6(STRANGER6, 22), Untouched),
        ("v4, another address", ipv4(STRANGER, "203.0.113.2", TCP).tcp(443, SYN), Untouched),
        ("v6, another address", ipv6(STRANGER6, "2001:db8:ed9e::2", TCP).tcp(443, SYN), Untouched),
        ("v4, UDP to the guarded port", ipv4(STRANGER, EDGE, UDP).udp(443), Untouched),
        ("v6, UDP to the guarded port", ipv6(STRANGER6, EDGE6, UDP).udp(443), Untouched),
        ("v4, an answer to the host's own connection", ipv4(STRANGER, EDGE, TCP).tcp(51_000, ACK), Untouched),
        ("ICMP", ipv4(STRANGER, EDGE, 1).then(&[8, 0, 0, 0, 0, 0, 0, 0]), Untouched),
        (
            "ICMPv6 neighbour solicitation",
            ipv6(STRANGER6, EDGE6, 58).then(&[135, 0, 0, 0, 0, 0, 0, 0]),
            Untouched,
        ),
        ("ARP", ethernet(0x0806).then(&[0; 28]), Untouched),
        ("LLDP", ethernet(0x88cc).then(&[0; 28]), Untouched),
        ("ESP", ipv4(STRANGER, EDGE, 50).then(&[0; 16]), Untouched),
        // VLAN tags.
        (
            "one tag, unlisted",
            tagged(&[VLAN]).ipv4(STRANGER, EDGE, TCP, &[], 0).tcp(443, SYN),
            Dropped(NotListed),
        ),
        ("one tag, listed", tagged(&[VLAN]).ipv4(LISTED, EDGE, TCP, &[], 0).tcp(443, SYN), Admitted),
        (
            "two tags, unlisted",
            tagged(&[PROVIDER_VLAN, VLAN]).ipv4(STRANGER, EDGE, TCP, &[], 0).tcp(443, SYN),
            Dropped(NotListed),
        ),
        (
            "three tags are not looked behind",
            tagged(&[PROVIDER_VLAN, VLAN, VLAN]).ipv4(STRANGER, EDGE, TCP, &[], 0).tcp(443, SYN),
            Untouched,
        ),
        // IPv4 options.
        (
            "options, unlisted",
            ethernet(0x0800).ipv4(STRANGER, EDGE, TCP, &[1; 40], 0).tcp(443, SYN),
            Dropped(NotListed),
        ),
        ("options, listed", ethernet(0x0800).ipv4(LISTED, EDGE, TCP, &[1; 4], 0).tcp(443, SYN), Admitted),
        // Fragments: the first is judged, and without it the later ones become nothing.
        (
            "v4 first fragment, unlisted",
            ethernet(0x0800).ipv4(STRANGER, EDGE, TCP, &[], MORE_FRAGMENTS).tcp(443, SYN),
            Dropped(NotListed),
        ),
        (
            "v4 first fragment, listed",
            ethernet(0x0800).ipv4(LISTED, EDGE, TCP, &[], MORE_FRAGMENTS).tcp(443, SYN),
            Admitted,
        ),
        ("v4 later fragment", ethernet(0x0800).ipv4(STRANGER, EDGE, TCP, &[], 3).then(&[0; 24]), Untouched),
        (
            "v6 first fragment, unlisted",
            ipv6(STRANGER6, EDGE6, 44).fragment(TCP, 0, true).tcp(443, SYN),
            Dropped(NotListed),
        ),
        (
            "v6 atomic fragment, listed",
            ipv6(LISTED6, EDGE6, 44).fragment(TCP, 0, false).tcp(443, SYN),
            Admitted,
        ),
        ("v6 later fragment", ipv6(STRANGER6, EDGE6, 44).fragment(TCP, 3, true).then(&[0; 24]), Untouched),
        (
            "v6 first fragment that hides its port in the second",
            ipv6(STRANGER6, EDGE6, 44).fragment(60, 0, true).extension(TCP, 1),
            DroppedForAddress(Truncated),
        ),
        // IPv6 extension headers.
        (
            "hop-by-hop and destination options, unlisted",
            ipv6(STRANGER6, EDGE6, 0).extension(60, 2).extension(TCP, 1).tcp(443, SYN),
            Dropped(NotListed),
        ),
        (
            "authentication header, unlisted",
            ipv6(STRANGER6, EDGE6, 51).authentication(TCP, 6).tcp(443, SYN),
            Dropped(NotListed),
        ),
        ("routing header, listed", ipv6(LISTED6, EDGE6, 43).extension(TCP, 3).tcp(443, SYN), Admitted),
        ("no next header", ipv6(STRANGER6, EDGE6, 59), Untouched),
        ("seven extension headers", too_many_extensions(LISTED6, EDGE6), DroppedForAddress(ExtensionHeaders)),
        (
            "seven extension headers, another address",
            too_many_extensions(STRANGER6, "2001:db8:ed9e::2"),
            Untouched,
        ),
        // Cut short.
        ("v4, cut before the port", tcp4(LISTED, 443).cut(18), DroppedForAddress(Truncated)),
        ("v6, cut before the port", tcp6(LISTED6, 443).cut(18), DroppedForAddress(Truncated)),
        ("v4, cut right behind the port", tcp4(STRANGER, 443).cut(16), Dropped(NotListed)),
        ("v4, cut before the port, another address", ipv4(STRANGER, "203.0.113.2", TCP), Untouched),
        ("v4, cut inside the address", ipv4(STRANGER, EDGE, TCP).cut(2), Untouched),
        (
            "v6, cut inside an extension header",
            ipv6(LISTED6, EDGE6, 60).then(&[TCP]),
            DroppedForAddress(Truncated),
        ),
        ("v4, an impossible header length", short_header(), Untouched),
    ]
}

fn too_many_extensions(source: &str, destination: &str) -> Packet {
    let first = ipv6(source, destination, 60);
    (0..6).fold(first, |packet, _| packet.extension(60, 1)).extension(TCP, 1).tcp(443, SYN)
}

fn short_header() -> Packet {
    let mut packet = ipv4(STRANGER, EDGE, TCP).tcp(443, SYN);
    packet.0[14] = 0x44;
    packet
}

#[test]
fn every_packet_gets_its_verdict_at_both_hooks() {
    in_scratch("every_packet_gets_its_verdict_at_both_hooks", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired()).unwrap();
        let mut gate = Gate::over(scratch);

        let mut wrong = Vec::new();
        for (name, packet, wanted) in table() {
            for hook in [Hook::Xdp, Hook::Tc] {
                if matches!(hook, Hook::Tc) && packet.is_shorter_than_its_ip_header() {
                    // The kernel makes no socket buffer of such a packet for a test.
                    continue;
                }
                let before = kernel.status().unwrap();
                let passed = gate.passes(hook, &packet.0);
                let after = kernel.status().unwrap();
                let got = verdict(passed, &before, &after);
                if got != Some(wanted) {
                    wrong.push(format!("{name} at {hook:?}: wanted {wanted:?}, got {got:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// The verdict, from what the program returned and the one counter that went up. `None` if they disagree.
fn verdict(passed: bool, before: &KernelStatus, after: &KernelStatus) -> Option<Verdict> {
    let mut counted = Vec::new();
    for (before, after) in before.entrypoints.iter().zip(&after.entrypoints) {
        let for_address = after.slot == proxy_common::scope::UNATTRIBUTED;
        if after.passed.packets != before.passed.packets {
            counted.push(Admitted);
        }
        for reason in DropReason::ALL {
            if after.dropped[reason.name()].packets != before.dropped[reason.name()].packets {
                counted.push(if for_address { DroppedForAddress(reason) } else { Dropped(reason) });
            }
        }
    }
    match (passed, counted.as_slice()) {
        (true, []) => Some(Untouched),
        (true, [Admitted]) => Some(Admitted),
        (false, [dropped @ (Dropped(_) | DroppedForAddress(_))]) => Some(*dropped),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Hook {
    Xdp,
    Tc,
}

/// The programs, loaded over the maps that the kernel side has filled and pinned.
struct Gate(Ebpf);

impl Gate {
    fn over(scratch: &scratch::Scratch) -> Self {
        let mut ebpf = programs_over(&scratch.bpffs);
        let xdp: &mut Xdp = ebpf.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        xdp.load().unwrap();
        let tc: &mut SchedClassifier = ebpf.program_mut(names::GATE_TC).unwrap().try_into().unwrap();
        tc.load().unwrap();
        Self(ebpf)
    }

    fn passes(&mut self, hook: Hook, packet: &[u8]) -> bool {
        let run = || TestRunOptions { data_in: Some(packet), ..TestRunOptions::default() };
        match hook {
            Hook::Xdp => {
                let xdp: &mut Xdp = self.0.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
                match xdp.test_run(run()).unwrap().return_value {
                    1 => false,
                    2 => true,
                    other => panic!("XDP returned {other}"),
                }
            }
            Hook::Tc => {
                let tc: &mut SchedClassifier =
                    self.0.program_mut(names::GATE_TC).unwrap().try_into().unwrap();
                match tc.test_run(run()).unwrap().return_value {
                    2 => false,
                    // TCX_NEXT: the stack, or whoever is attached behind.
                    u32::MAX => true,
                    other => panic!("tcx returned {other}"),
                }
            }
        }
    }
}

fn desired() -> Desired {
    let lists = vec![NamedList {
        name: "visitors".into(),
        prefixes: ["192.0.2.0/24", "2001:db8:c1::/48"].iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }];
    let bind = vec![format!("{EDGE}:443").parse().unwrap(), format!("[{EDGE6}]:443").parse().unwrap()];
    Desired {
        generation: 1,
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        guarded: vec![Guarded { entrypoint: "https".into(), bind, lists }],
    }
}
