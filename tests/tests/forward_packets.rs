//! Port passthrough: a table of packets, each run through the program in the kernel, with what becomes of it byte by byte.
//!
//! Packets are read back by a parser of its own (`forward_packets/wire.rs`), which sums up every checksum anew. What the program
//! keeps of flows is looked at in its maps.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use proxy_common::{
    flow::State,
    forward::{ServerState, Service, Settings, StopReason, service, settings},
    names,
};

#[path = "forward_packets/edge.rs"]
mod edge;
#[path = "forward_packets/flows.rs"]
mod flows;
#[path = "support/scratch.rs"]
mod scratch;
#[path = "forward_packets/table.rs"]
mod table;
#[path = "forward_packets/wire.rs"]
mod wire;

use edge::{Edge, FIRST_PORT, Outcome, PORTS};
use scratch::in_scratch;
use table::{Becomes, Case, Side, table};
use wire::{Error, Wire, end};

pub const CLIENT: &str = "198.51.100.7:40000";
pub const CLIENT6: &str = "[2001:db8:c::7]:40000";
/// Services: with their sources replaced, and kept.
pub const SERVICE: &str = "203.0.113.1:443";
pub const SERVICE6: &str = "[2001:db8:e::1]:443";
pub const KEPT: &str = "203.0.113.1:25";
pub const KEPT6: &str = "[2001:db8:e::1]:25";
/// One of which no server is there, and one that isn't forwarded any more.
pub const EMPTY: &str = "203.0.113.1:81";
pub const RETIRED: &str = "203.0.113.1:82";
pub const SERVER: &str = "10.0.0.11:8443";
pub const SERVER6: &str = "[fd00::11]:8443";
/// Where the first flow comes from, as servers see it.
pub const NAT: &str = "10.0.0.1:20000";
pub const NAT6: &str = "[fd00::1]:20000";

const SLOT: u16 = 1;
const SLOT6: u16 = 2;

/// Services 1 (replaced), 2 (kept), 3 (without a server) and 4 (retired), over TCP and UDP, IPv4 and IPv6.
fn edge(scratch: &scratch::Scratch, forwards: bool) -> Edge {
    let mut edge = Edge::new(scratch, forwards);
    edge.server(SLOT, end(SERVER), "10.0.0.1", ServerState::Serving);
    edge.server(SLOT6, end(SERVER6), "fd00::1", ServerState::Serving);
    edge.table(1, |_| SLOT);
    edge.table(2, |_| SLOT6);
    edge.table(3, |_| 0);
    let kept = service::KEEP_SOURCE;
    for (at, slot, table, flags) in [
        (SERVICE, 1, 1, 0),
        (SERVICE6, 1, 2, 0),
        (KEPT, 2, 1, kept),
        (KEPT6, 2, 2, kept),
        (EMPTY, 3, 3, 0),
        (RETIRED, 4, 1, service::RETIRED),
    ] {
        for protocol in [wire::TCP, wire::UDP] {
            let service = Service { generation: 1, slot, table, flags, reserved: 0, idle: 3600, lifetime: 0 };
            edge.service(end(at), protocol, service);
        }
    }
    edge.set(names::FORWARD_SETTINGS, 0, Settings { flags: settings::REPLIES_ANYWHERE, ..edge::settings() });
    edge
}

#[test]
fn every_packet_becomes_what_it_should() {
    in_scratch("every_packet_becomes_what_it_should", |scratch| {
        let mut edge = edge(scratch, true);
        let cases = table();
        assert!(cases.len() >= 60, "{}", cases.len());
        let mut wrong = Vec::new();
        for Case { name, before, from, packet, becomes } in cases {
            edge.forget();
            for (from, packet) in before {
                if !matches!(run(&mut edge, from, &packet), Outcome::Sent(_)) {
                    wrong.push(format!("{name}: what comes before isn't sent on"));
                }
            }
            let before = edge.all_counters();
            let got = run(&mut edge, from, &packet);
            let stopped = edge.stopped(&before);
            if let Err(why) = compare(&becomes, &got, &stopped) {
                wrong.push(format!("{name}: {why}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// On a host that doesn't forward, the same packets go out by the interfaces that are known of their flows.
#[test]
fn a_host_that_does_not_forward_carries_the_same() {
    in_scratch("a_host_that_does_not_forward_carries_the_same", |scratch| {
        let mut edge = edge(scratch, false);
        for Case { name, before, from, packet, becomes } in table() {
            let (Becomes::Packet(_) | Becomes::Error(_)) = becomes else { continue };
            edge.forget();
            for (from, packet) in before {
                run(&mut edge, from, &packet);
            }
            let before = edge.all_counters();
            let got = run(&mut edge, from, &packet);
            let stopped = edge.stopped(&before);
            if let Err(why) = compare(&becomes, &got, &stopped) {
                panic!("{name}: {why}");
            }
        }
    });
}

#[test]
fn every_reason_and_state_is_in_the_documentation_too() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernel-passthrough.md");
    let page = std::fs::read_to_string(path).unwrap();
    let names = StopReason::ALL.map(StopReason::name).into_iter().chain(State::ALL.map(State::name));
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/kernel-passthrough.md doesn't name `{name}`");
    }
}

fn run(edge: &mut Edge, from: Side, packet: &[u8]) -> Outcome {
    match from {
        Side::Client => edge.client_sends(packet),
        Side::Server => edge.server_sends(packet),
    }
}

fn compare(wanted: &Becomes, got: &Outcome, stopped: &[StopReason]) -> Result<(), String> {
    let reasons = match wanted {
        Becomes::Untouched | Becomes::Packet(_) | Becomes::Error(_) => Vec::new(),
        Becomes::Dropped(reason) | Becomes::Refused(reason) => vec![*reason],
    };
    if stopped != reasons {
        return Err(format!("counted as {stopped:?} instead of {reasons:?}, and {got:?}"));
    }
    match (wanted, got) {
        (Becomes::Untouched | Becomes::Refused(_), Outcome::Untouched)
        | (Becomes::Dropped(_), Outcome::Dropped) => Ok(()),
        (Becomes::Packet(wanted), Outcome::Sent(frame)) => {
            let got = Wire::read(frame);
            if got == *wanted { Ok(()) } else { Err(format!("\n  wanted {wanted:?}\n  got    {got:?}")) }
        }
        (Becomes::Error(wanted), Outcome::Sent(frame)) => {
            let got = Error::read(frame);
            if got == *wanted { Ok(()) } else { Err(format!("\n  wanted {wanted:?}\n  got    {got:?}")) }
        }
        _ => Err(format!("wanted {wanted:?}, got {got:?}")),
    }
}
