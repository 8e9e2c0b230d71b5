//! The gate's verdicts: a table of packets, each judged by the kernel at XDP and at tcx, in earnest and as a rehearsal.
//!
//! `docs/gate.md` shows the same table to operators; `WEIR_WRITE_DOCS=1` brings it up to date.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{collections::BTreeSet, fmt::Write as _, path::Path, time::Duration};

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{HashMap, Map, MapData},
    programs::{SchedClassifier, Xdp},
};
use proxy_common::{
    blocked::FOREVER,
    limit::{SourceKey, Spent},
    names,
    verdict::DropReason,
};
use proxy_user::{
    config::model::{KernelMode, Rate, SourceLimit, SynCookies},
    kernel::{Desired, Guarded, Kernel, KernelStatus, NamedList, Protocol, blocks::BlockedPrefix},
};

#[path = "support/packet.rs"]
mod packet;
#[path = "support/scratch.rs"]
mod scratch;
#[path = "gate_packets/table.rs"]
mod table;

use scratch::{in_scratch, programs_over, telling_programs_over};
use table::{
    BLOCKED, BLOCKED_AROUND_CDN, BLOCKED_CDN, BLOCKED_ONCE, BLOCKED6, CONNECTIONS_CDN_PORT, CONNECTIONS_PORT,
    Case, EDGE, EDGE6, Group, LISTED, OPEN, OPEN_PORT, OPEN6, PACKETS_CDN_PORT, PACKETS_PORT, STRANGER,
    STRANGER6, TCP_PORT, UDP_PORT,
    Verdict::{self, Admitted, Dropped, DroppedForAddress, Untouched},
    table,
};

#[test]
fn every_packet_gets_its_verdict_at_both_hooks() {
    in_scratch("every_packet_gets_its_verdict_at_both_hooks", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.block(&blocks()).unwrap();
        kernel.apply(&desired(false)).unwrap();
        let conclude = |passed, change: &[Change]| match change {
            [] if passed => Some(Untouched),
            [Change { verdict, would: false }] if passed == (*verdict == Admitted) => Some(*verdict),
            _ => None,
        };
        let wrong = judge_all(&kernel, scratch, Gate::over(scratch), conclude);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // The programs that log judge alike.
        let mut telling = Gate::telling_over(scratch);
        for_each_case(|title, case, hook| {
            forget_sources(&scratch.bpffs);
            for packet in &case.before {
                telling.passes(hook, &packet.0);
            }
            let passed = telling.passes(hook, &case.packet.0);
            assert_eq!(
                passed,
                matches!(case.verdict, Untouched | Admitted),
                "{title}: {} at {hook:?}",
                case.name
            );
        });
        assert!(
            kernel
                .status()
                .unwrap()
                .entrypoints
                .iter()
                .all(|entrypoint| entrypoint.would_drop_from.is_empty())
        );
    });
}

#[test]
fn a_rehearsal_comes_to_the_same_verdicts_and_drops_nothing() {
    in_scratch("a_rehearsal_comes_to_the_same_verdicts_and_drops_nothing", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.block(&blocks()).unwrap();
        kernel.apply(&desired(true)).unwrap();
        let wrong = judge_all(&kernel, scratch, Gate::over(scratch), |passed, change| match change {
            _ if !passed => None,
            [] => Some(Untouched),
            [Change { verdict, would }] if *would == (*verdict != Admitted) => Some(*verdict),
            _ => None,
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn a_rehearsal_tells_where_it_came_from_and_ends_with_one_update() {
    in_scratch("a_rehearsal_tells_where_it_came_from_and_ends_with_one_update", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(true)).unwrap();
        let mut gate = Gate::over(scratch);
        let of = |kernel: &Kernel| {
            let status = kernel.status().unwrap();
            status.entrypoints.into_iter().find(|entrypoint| entrypoint.name == "https").unwrap()
        };
        let tcp4 = |source| packet::ipv4(source, EDGE, packet::TCP).tcp(TCP_PORT, 2);
        for source in ["198.51.100.1", STRANGER, "198.51.100.255", "198.51.101.0", LISTED] {
            assert!(gate.passes(Hook::Xdp, &tcp4(source).0), "{source}");
        }
        let tcp6 = |source| packet::ipv6(source, EDGE6, packet::TCP).tcp(TCP_PORT, 2);
        for source in [STRANGER6, "2001:db8:bad:ffff::1", "2001:db8:bae::"] {
            assert!(gate.passes(Hook::Tc, &tcp6(source).0), "{source}");
        }

        let https = of(&kernel);
        assert!(https.shadow);
        assert_eq!((https.passed.packets, https.would_drop["not_listed"].packets), (1, 7));
        assert!(https.dropped.values().all(|tally| tally.packets == 0));
        let from: Vec<_> = https
            .would_drop_from
            .iter()
            .map(|from| (from.prefix.to_string(), from.packets, from.bytes))
            .collect();
        let from: Vec<_> =
            from.iter().map(|(prefix, packets, bytes)| (prefix.as_str(), *packets, *bytes)).collect();
        assert_eq!(
            from,
            [
                ("198.51.100.0/24", 3, 3 * 54),
                ("2001:db8:bad::/48", 2, 2 * 74),
                ("198.51.101.0/24", 1, 54),
                ("2001:db8:bae::/48", 1, 74),
            ]
        );

        kernel.apply(&desired(false)).unwrap();
        assert!(!gate.passes(Hook::Xdp, &tcp4(STRANGER).0));
        assert!(gate.passes(Hook::Xdp, &tcp4(LISTED).0));
        let https = of(&kernel);
        assert!(!https.shadow);
        assert_eq!((https.dropped["not_listed"].packets, https.would_drop["not_listed"].packets), (1, 7));
    });
}

#[test]
fn where_nothing_is_guarded_nothing_is_touched() {
    in_scratch("where_nothing_is_guarded_nothing_is_touched", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&Desired { guarded: Vec::new(), ..desired(false) }).unwrap();
        let mut gate = Gate::over(scratch);
        for case in table().iter().flat_map(|group| &group.cases) {
            assert!(gate.passes(Hook::Xdp, &case.packet.0), "{}", case.name);
        }
        let counted = |kernel: &Kernel| kernel.status().unwrap().entrypoints;
        assert!(
            counted(&kernel).iter().all(|entrypoint| entrypoint.dropped.values().all(|of| of.packets == 0))
        );
    });
}

#[test]
fn the_table_is_complete_and_the_documentation_shows_it() {
    let groups = table();
    assert!(groups.iter().map(|group| group.cases.len()).sum::<usize>() >= 80);
    for group in &groups {
        let names: BTreeSet<_> = group.cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), group.cases.len(), "{}: a name stands there twice", group.title);
    }
    let reached: BTreeSet<_> = groups
        .iter()
        .flat_map(|group| &group.cases)
        .filter_map(|case| match case.verdict {
            Dropped(reason) | DroppedForAddress(reason) => Some(reason.name()),
            Untouched | Admitted => None,
        })
        .collect();
    // Where a list is missing, the maps are damaged; what depends on a handshake is in `syn_cookies.rs`.
    let elsewhere = [DropReason::ListMissing, DropReason::BadCookie];
    for reason in DropReason::ALL.iter().filter(|reason| !elsewhere.contains(reason)) {
        assert!(reached.contains(reason.name()), "no packet is dropped as `{}`", reason.name());
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gate.md");
    let page = std::fs::read_to_string(&path).unwrap();
    for reason in DropReason::ALL {
        assert!(
            page.contains(&format!("`{}`", reason.name())),
            "docs/gate.md doesn't name `{}`",
            reason.name()
        );
    }
    let (before, rest) = page.split_once(BEGIN).expect("docs/gate.md has lost the beginning of its table");
    let (_, after) = rest.split_once(END).expect("docs/gate.md has lost the end of its table");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", documented(&groups));
    if std::env::var_os("WEIR_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    } else {
        let how = "run `WEIR_WRITE_DOCS=1 cargo test -p weir-lab --test gate_packets the_table`";
        assert!(page == wanted, "docs/gate.md shows other verdicts than the tests: {how}");
    }
}

const BEGIN: &str = "<!-- Written by tests/tests/gate_packets.rs from here -->\n";
const END: &str = "<!-- to here -->\n";

/// The table as it stands in the documentation.
fn documented(groups: &[Group]) -> String {
    let mut text = String::new();
    for Group { title, cases } in groups {
        let _ = write!(text, "\n### {title}\n\n| packet | verdict | counted as |\n|---|---|---|\n");
        for case in cases {
            let (verdict, counted) = match case.verdict {
                Untouched => ("untouched", "–".to_owned()),
                Admitted => ("passes", "`passed`".to_owned()),
                Dropped(reason) => ("dropped", format!("`{}`", reason.name())),
                DroppedForAddress(reason) => ("dropped", format!("`{}`, under `(no port)`", reason.name())),
            };
            let _ = writeln!(text, "| {} | {verdict} | {counted} |", case.name);
        }
    }
    text + "\n"
}

/// A counter that went up.
#[derive(Debug)]
struct Change {
    verdict: Verdict,
    /// It counts what would have been.
    would: bool,
}

/// Judges each packet at each hook. Returns what was other than it should be; `conclude` makes a verdict of whether
/// it passed and of the counters that went up, or none if they disagree.
fn judge_all(
    kernel: &Kernel,
    scratch: &scratch::Scratch,
    mut gate: Gate,
    conclude: impl Fn(bool, &[Change]) -> Option<Verdict>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for_each_case(|title, case, hook| {
        forget_sources(&scratch.bpffs);
        for packet in &case.before {
            gate.passes(hook, &packet.0);
        }
        let before = kernel.status().unwrap();
        let passed = gate.passes(hook, &case.packet.0);
        let changes = changes(&before, &kernel.status().unwrap());
        if conclude(passed, &changes) != Some(case.verdict) {
            let (name, wanted) = (case.name, case.verdict);
            let got = if passed { "passed" } else { "dropped" };
            wrong.push(format!("{title}: {name} at {hook:?}: wanted {wanted:?}, {got} and {changes:?}"));
        }
    });
    wrong
}

/// Each packet of the table at each hook.
fn for_each_case(mut judge: impl FnMut(&str, &Case, Hook)) {
    for Group { title, cases } in table() {
        for case in cases {
            for hook in [Hook::Xdp, Hook::Tc] {
                if matches!(hook, Hook::Tc) && case.packet.is_shorter_than_its_ip_header() {
                    // The kernel makes no socket buffer of such a packet for a test.
                    continue;
                }
                judge(title, &case, hook);
            }
        }
    }
}

/// As if nothing had been heard of anybody.
fn forget_sources(bpffs: &Path) {
    let pin = bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS).join(names::GATE_SOURCES);
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut sources: HashMap<_, SourceKey, Spent> = map.try_into().unwrap();
    for key in sources.keys().collect::<Result<Vec<_>, _>>().unwrap() {
        sources.remove(&key).unwrap();
    }
}

fn changes(before: &KernelStatus, after: &KernelStatus) -> Vec<Change> {
    let mut changes = Vec::new();
    for (before, after) in before.entrypoints.iter().zip(&after.entrypoints) {
        let for_address = after.slot == proxy_common::scope::UNATTRIBUTED;
        if after.passed.packets != before.passed.packets {
            changes.push(Change { verdict: Admitted, would: false });
        }
        for reason in DropReason::ALL {
            let verdict = if for_address { DroppedForAddress(reason) } else { Dropped(reason) };
            if after.dropped[reason.name()].packets != before.dropped[reason.name()].packets {
                changes.push(Change { verdict, would: false });
            }
            if after.would_drop[reason.name()].packets != before.would_drop[reason.name()].packets {
                changes.push(Change { verdict, would: true });
            }
        }
    }
    changes
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
        Self::of(programs_over(&scratch.bpffs))
    }

    fn telling_over(scratch: &scratch::Scratch) -> Self {
        Self::of(telling_programs_over(&scratch.bpffs))
    }

    fn of(mut ebpf: Ebpf) -> Self {
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

fn desired(shadow: bool) -> Desired {
    let list = |name: &str, cdn, prefixes: [&str; 2]| NamedList {
        name: name.into(),
        cdn,
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    };
    let visitors = list("visitors", false, ["192.0.2.0/24", "2001:db8:c1::/48"]);
    let cdn = list("cdn", true, ["100.64.0.0/24", "2001:db8:cd::/48"]);
    let guarded = |entrypoint: &str, port: u16, protocol| Guarded {
        entrypoint: entrypoint.into(),
        bind: vec![format!("{EDGE}:{port}").parse().unwrap(), format!("[{EDGE6}]:{port}").parse().unwrap()],
        protocols: vec![protocol],
        lists: vec![visitors.clone()],
        shadow,
        limit: None,
        syn_cookies: SynCookies::OFF,
    };
    let a_minute = |burst| Some(Rate { count: 1, per: Duration::from_secs(60), burst });
    let limited = |entrypoint: &str, port, packets, connections, of_cdn| Guarded {
        lists: vec![visitors.clone(), cdn.clone()],
        limit: Some(SourceLimit { packets, connections, cdn: of_cdn }),
        ..guarded(entrypoint, port, Protocol::Tcp)
    };
    let open = Guarded {
        bind: [format!("{OPEN}:{OPEN_PORT}"), format!("[{OPEN6}]:{OPEN_PORT}")]
            .map(|bind| bind.parse().unwrap())
            .to_vec(),
        lists: Vec::new(),
        ..limited("open", OPEN_PORT, None, a_minute(2), false)
    };
    Desired {
        generation: 1,
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        log: false,
        guarded: vec![
            guarded("https", TCP_PORT, Protocol::Tcp),
            guarded("quic", UDP_PORT, Protocol::Udp),
            limited("packets", PACKETS_PORT, a_minute(3), None, false),
            limited("connections", CONNECTIONS_PORT, None, a_minute(2), false),
            limited("packets-cdn", PACKETS_CDN_PORT, a_minute(3), None, true),
            limited("connections-cdn", CONNECTIONS_CDN_PORT, None, a_minute(2), true),
            open,
        ],
    }
}

/// In nanoseconds since the host was booted, which was more than one ago.
fn blocks() -> Vec<BlockedPrefix> {
    let block =
        |prefix: &str, until, until_cdn| BlockedPrefix { prefix: prefix.parse().unwrap(), until, until_cdn };
    vec![
        block(BLOCKED, FOREVER, 0),
        block(BLOCKED6, FOREVER, 0),
        block(BLOCKED_ONCE, 1, 1),
        block(BLOCKED_AROUND_CDN, FOREVER, 0),
        block(BLOCKED_CDN, FOREVER, FOREVER),
    ]
}
