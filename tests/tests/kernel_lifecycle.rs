//! The gate's life: first start, death of its daemon, adoption, swap of lists, removal. On real interfaces.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use aya::{TestRun, TestRunOptions, programs::Xdp};

use proxy_common::{answer::Outcome, names, verdict::DropReason};
use proxy_user::{
    config::model::KernelMode,
    kernel::{self, Change, Desired, Hook, Kernel, KernelFault, Protocol, explain::Explainer},
};

#[path = "support/edge.rs"]
mod edge;
#[path = "support/loader.rs"]
mod loading;
#[path = "support/packet.rs"]
mod packet;
#[path = "support/scratch.rs"]
mod scratch;

use edge::{Lab, STRANGER, VISITOR, desired};
use loading::Loader;
use scratch::{in_scratch, ip, programs_over, tc_hook};

#[test]
fn a_stranger_is_dropped_and_a_visitor_comes_in() {
    in_scratch("a_stranger_is_dropped_and_a_visitor_comes_in", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let applied = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        assert_eq!((applied.interfaces[0].hook, applied.interfaces[0].change), (tc_hook(), Change::Attached));

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
fn three_capabilities_suffice_to_load_and_to_adopt() {
    in_scratch("three_capabilities_suffice_to_load_and_to_adopt", |scratch| {
        let _lab = Lab::new(scratch);
        for _ in 0..2 {
            Loader::start_with(scratch, "-all,+bpf,+net_admin,+perfmon").kill();
        }
        let mut refused =
            Loader::command(scratch, "-all,+bpf,+net_admin").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(refused.stderr.take().unwrap()).lines().map_while(Result::ok);
        let told =
            lines.any(|line| line.contains("no permission to load the gate: the gate needs root, or the"));
        refused.wait().unwrap();
        assert!(told);
    });
}

#[test]
fn a_loader_killed_while_it_puts_a_scope_in_place_leaves_what_the_next_can_tell() {
    in_scratch("a_loader_killed_while_it_puts_a_scope_in_place_leaves_what_the_next_can_tell", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        drop(kernel);
        // As if killed after the update and before the pin took its name.
        let maps = scratch.bpffs.join("weir/v2/maps");
        std::fs::rename(maps.join(names::RUNNING_SCOPE), maps.join(names::INCOMING_SCOPE)).unwrap();

        let observe = || kernel::observe(&scratch.bpffs).unwrap().unwrap();
        assert_eq!(observe().generation, Some(1));
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        assert!(maps.join(names::RUNNING_SCOPE).exists() && !maps.join(names::INCOMING_SCOPE).exists());
        kernel.apply(&desired(2, &["192.0.2.0/24", "10.0.0.0/8"])).unwrap();
        lab.is_dropped(STRANGER, observe);
        lab.comes_in(VISITOR);
    });
}

#[test]
fn unload_leaves_nothing() {
    in_scratch("unload_leaves_nothing", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        kernel.make_explainable().unwrap();
        drop(kernel);
        lab.is_dropped(STRANGER, || kernel::observe(&scratch.bpffs).unwrap().unwrap());

        let unloaded = kernel::unload(&scratch.bpffs).unwrap();
        assert_eq!((unloaded.interfaces, unloaded.programs), (vec!["edge0".to_owned()], 3));
        // And the pin of the running scope.
        assert_eq!(unloaded.maps, names::GATE_MAPS.len() + 1);
        assert_eq!(std::fs::read_dir(&scratch.bpffs).unwrap().filter(not_debug).count(), 0);
        assert!(kernel::observe(&scratch.bpffs).unwrap().is_none());
        lab.comes_in(STRANGER);
        // Twice is as good.
        kernel::unload(&scratch.bpffs).unwrap();
    });
}

#[test]
fn a_change_of_hook_leaves_no_gap_and_a_new_interface_of_the_same_name_is_guarded() {
    in_scratch("a_change_of_hook_leaves_no_gap_and_a_new_interface_of_the_same_name_is_guarded", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();

        for (generation, mode, hook) in [(2, KernelMode::Xdp, Hook::Xdp), (3, KernelMode::Tc, tc_hook())] {
            let applied = kernel.apply(&Desired { mode, ..desired(generation, &["192.0.2.0/24"]) }).unwrap();
            assert_eq!((applied.interfaces[0].hook, applied.interfaces[0].change), (hook, Change::Moved));
            assert_eq!(kernel.status().unwrap().interfaces[0].hook, Some(hook));
            lab.comes_in(VISITOR);
            lab.is_dropped(STRANGER, || kernel.status().unwrap());
        }

        ip("link delete edge0");
        drop(lab);
        // A pinned link outlives the interface; a filter at clsact goes with it.
        let left = kernel.status().unwrap().interfaces;
        let wanted = match tc_hook() {
            Hook::Clsact => (0, Change::Attached),
            Hook::Xdp | Hook::Tcx => (1, Change::Moved),
        };
        assert_eq!(left.iter().filter(|interface| interface.index.is_none()).count(), wanted.0);
        let lab = Lab::new(scratch);
        let applied = kernel.apply(&desired(4, &["192.0.2.0/24"])).unwrap();
        assert_eq!(applied.interfaces[0].change, wanted.1);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

#[test]
fn an_interface_that_is_no_longer_named_is_let_go() {
    in_scratch("an_interface_that_is_no_longer_named_is_let_go", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        let applied = kernel.apply(&Desired { interfaces: vec![], ..desired(2, &["192.0.2.0/24"]) }).unwrap();
        assert_eq!(applied.detached, ["edge0"]);
        assert!(kernel.status().unwrap().interfaces.is_empty());
        lab.comes_in(STRANGER);
    });
}

#[test]
fn what_is_refused_leaves_the_running_generation_alone() {
    in_scratch("what_is_refused_leaves_the_running_generation_alone", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();

        let refusals = [
            (vec!["edge0", "eth9"], KernelMode::Auto, "interface `eth9` does not exist here"),
            (vec!["edge0", "lo"], KernelMode::Xdp, "interface `lo` refuses the gate at xdp"),
        ];
        for (interfaces, mode, sentence) in refusals {
            let interfaces = interfaces.into_iter().map(Into::into).collect();
            // Would let the stranger in, if any of it came to pass.
            let refused = Desired { interfaces, mode, ..desired(2, &["0.0.0.0/0"]) };
            let fault = kernel.apply(&refused).unwrap_err();
            assert!(fault.to_string().starts_with(sentence), "{fault}");
            assert!(!fault.is_unavailable());

            let status = kernel.status().unwrap();
            assert_eq!(status.generation, Some(1));
            assert_eq!((status.interfaces.len(), status.interfaces[0].hook), (1, Some(tc_hook())));
            lab.comes_in(VISITOR);
            lab.is_dropped(STRANGER, || kernel.status().unwrap());
        }
    });
}

#[test]
fn a_start_that_is_refused_leaves_nothing_attached_and_nothing_guarded() {
    in_scratch("a_start_that_is_refused_leaves_nothing_attached_and_nothing_guarded", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let interfaces = vec!["edge0".into(), "lo".into()];
        let refused = Desired { interfaces, mode: KernelMode::Xdp, ..desired(1, &["192.0.2.0/24"]) };
        kernel.apply(&refused).unwrap_err();
        let status = kernel.status().unwrap();
        assert_eq!(status.generation, None);
        assert!(status.interfaces.is_empty());
        lab.comes_in(STRANGER);
    });
}

#[test]
fn a_wildcard_follows_the_addresses_of_the_host() {
    in_scratch("a_wildcard_follows_the_addresses_of_the_host", |scratch| {
        let _lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let mut wanted = desired(1, &["192.0.2.0/24"]);
        wanted.guarded[0].bind = vec!["0.0.0.0:443".parse().unwrap()];
        kernel.apply(&wanted).unwrap();
        let guards = |kernel: &Kernel| {
            let status = kernel.status().unwrap();
            status.entrypoints.into_iter().find(|entrypoint| entrypoint.name == "https").unwrap().guards
        };
        assert_eq!(guards(&kernel), ["127.0.0.1:443/tcp", "203.0.113.1:443/tcp"]);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut changes = kernel::addresses::AddressChanges::watch().unwrap();
            ip("addr add 203.0.113.7/24 dev edge0");
            tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
        });
        kernel.apply(&wanted).unwrap();
        assert_eq!(guards(&kernel), ["127.0.0.1:443/tcp", "203.0.113.1:443/tcp", "203.0.113.7:443/tcp"]);
    });
}

#[test]
fn an_interface_without_ethernet_frames_is_refused() {
    in_scratch("an_interface_without_ethernet_frames_is_refused", |scratch| {
        ip("tuntap add dev tun0 mode tun");
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let wanted = Desired { interfaces: vec!["tun0".into()], ..desired(1, &["192.0.2.0/24"]) };
        let fault = kernel.apply(&wanted).unwrap_err();
        assert!(matches!(fault, KernelFault::NotEthernet { .. }), "{fault}");
    });
}

#[test]
fn pinned_maps_of_another_layout_are_refused_by_name() {
    in_scratch("pinned_maps_of_another_layout_are_refused_by_name", |scratch| {
        let maps = scratch.bpffs.join("weir/v2/maps");
        std::fs::create_dir_all(&maps).unwrap();
        aya::maps::Array::<_, u64>::create(1, 0).unwrap().pin(maps.join("GATE_COUNTERS")).unwrap();
        let Err(fault) = Kernel::open(&scratch.bpffs) else { panic!("it was taken for ours") };
        let sentence = fault.to_string();
        assert!(sentence.contains("GATE_COUNTERS has another layout than this binary's"), "{sentence}");
        assert!(sentence.contains("`weir kernel unload` removes it"), "{sentence}");
        kernel::unload(&scratch.bpffs).unwrap();
        Kernel::open(&scratch.bpffs).unwrap();
    });
}

#[test]
fn an_array_for_maps_of_another_shape_is_refused_by_name() {
    const NAME: &str = "an_array_for_maps_of_another_shape_is_refused_by_name";
    if std::process::Command::new("bpftool").arg("version").output().is_err() {
        return scratch::skip(NAME, "there is no `bpftool` (Debian's package `bpftool`)");
    }
    in_scratch(NAME, |scratch| {
        let maps = scratch.bpffs.join("weir/v2/maps");
        std::fs::create_dir_all(&maps).unwrap();
        // The outer map is as it should be, and what it takes isn't.
        let foreign = |name: &str, slots: u32| {
            let at = maps.join(name);
            let arguments = [
                "map",
                "create",
                at.to_str().unwrap(),
                "type",
                "array_of_maps",
                "key",
                "4",
                "value",
                "4",
                "entries",
                &slots.to_string(),
                "name",
                "outer",
                "inner_map",
                "pinned",
                maps.join("inner").to_str().unwrap(),
            ]
            .map(str::to_owned);
            let made = std::process::Command::new("bpftool").args(arguments).status().unwrap();
            assert!(made.success());
        };
        let clear = || {
            for pin in std::fs::read_dir(&maps).unwrap().map(|pin| pin.unwrap().path()) {
                std::fs::remove_file(pin).unwrap();
            }
        };
        for (name, slots) in [(names::GATE_SIEVES, 128), (names::GATE_SCOPE, 1), (names::GATE_INDEX, 128)] {
            aya::maps::Array::<_, u64>::create(1, 0).unwrap().pin(maps.join("inner")).unwrap();
            foreign(name, slots);
            let Err(fault) = Kernel::open(&scratch.bpffs) else { panic!("{name} was taken for ours") };
            let sentence = fault.to_string();
            assert!(
                sentence.contains(&format!("{name} has another layout than this binary's")),
                "{sentence}"
            );
            assert!(!fault.is_unavailable(), "`mode = \"auto\"` must not go on without a gate");
            clear();
        }
        // And what is right is found to be, also with a scope in place.
        let _lab = Lab::new(scratch);
        Kernel::open(&scratch.bpffs).unwrap().apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        assert_eq!(Kernel::open(&scratch.bpffs).unwrap().status().unwrap().generation, Some(1));
    });
}

/// Whatever an upgrade brings: the gate that stands goes on until the new one takes its place.
#[test]
fn a_gate_of_another_layout_is_taken_over_without_a_gap() {
    in_scratch("a_gate_of_another_layout_is_taken_over_without_a_gap", |scratch| {
        let lab = Lab::new(scratch);
        let (ours, other) = (scratch.bpffs.join("weir/v2"), scratch.bpffs.join("weir/v1"));
        Loader::start(scratch).kill();
        let traffic = Traffic::start(&lab);
        for (round, mode) in
            [KernelMode::Auto, KernelMode::Xdp, KernelMode::Tc, KernelMode::Auto].into_iter().enumerate()
        {
            // As a version with other maps has left it.
            std::fs::rename(&ours, &other).unwrap();
            std::fs::remove_file(other.join("maps").join(names::GATE_COUNTERS)).unwrap();
            let counters = aya::maps::Array::<_, u64>::create(1, 0).unwrap();
            counters.pin(other.join("maps").join(names::GATE_COUNTERS)).unwrap();
            assert!(kernel::observe(&scratch.bpffs).unwrap().is_none());
            assert!(kernel::stands(&scratch.bpffs).unwrap());

            let mut next = Kernel::open(&scratch.bpffs).unwrap();
            // What is refused takes nothing over.
            let nowhere = Desired { interfaces: vec!["eth9".into()], ..desired(1, &["0.0.0.0/0"]) };
            next.apply(&nowhere).unwrap_err();
            let found = kernel::other_versions(&scratch.bpffs).unwrap();
            assert_eq!((found.len(), found[0].layout.as_str()), (1, "v1"));
            traffic.wait_for_more();

            let applied = next.apply(&Desired { mode, ..desired(7, &["192.0.2.0/24"]) }).unwrap();
            assert!(matches!(applied.interfaces[0].change, Change::Adopted | Change::Moved), "{applied:?}");
            assert!(!other.exists(), "the old pins are gone");
            assert!(kernel::other_versions(&scratch.bpffs).unwrap().is_empty());
            let status = next.status().unwrap();
            assert_eq!((status.generation, status.interfaces.len()), (Some(7), 1), "round {round}");
            // A link goes a moment after its last pin.
            traffic.wait_until(|| next.status().unwrap().interfaces[0].others.is_empty());
            traffic.wait_for_more();
            drop(next);
        }
        let (visitors, strangers) = traffic.stop();
        assert!(strangers > 20, "{strangers} attempts");
        assert!(visitors > 100, "{visitors} connections");
    });
}

#[test]
fn a_daemon_of_another_layout_is_not_robbed_and_unload_removes_its_gate_too() {
    in_scratch("a_daemon_of_another_layout_is_not_robbed_and_unload_removes_its_gate_too", |scratch| {
        let lab = Lab::new(scratch);
        let mut other = Loader::start(scratch);
        std::fs::rename(scratch.bpffs.join("weir/v2"), scratch.bpffs.join("weir/v1")).unwrap();
        let Err(fault) = Kernel::open(&scratch.bpffs) else { panic!("there were two") };
        assert!(
            fault.to_string().starts_with("another `weir run` looks after the gate pinned below "),
            "{fault}"
        );
        other.kill();

        let mut next = Kernel::open(&scratch.bpffs).unwrap();
        // `mode = "off"`, or no interface named any more: the old gate goes as well.
        let applied = next.apply(&Desired { interfaces: vec![], ..desired(2, &["192.0.2.0/24"]) }).unwrap();
        assert_eq!(
            applied.detached,
            if tc_hook() == Hook::Tcx {
                vec!["edge0"]
            } else {
                applied.detached.iter().map(String::as_str).collect()
            }
        );
        lab.comes_in(STRANGER);
        next.apply(&desired(3, &["192.0.2.0/24"])).unwrap();
        drop(next);

        std::fs::rename(scratch.bpffs.join("weir/v2"), scratch.bpffs.join("weir/v1")).unwrap();
        let unloaded = kernel::unload(&scratch.bpffs).unwrap();
        assert_eq!(unloaded.interfaces, ["edge0"]);
        assert!(!scratch.bpffs.join("weir").exists());
        lab.comes_in(STRANGER);
    });
}

/// Connections from the visitor, who must always come in, and from the stranger, who never may.
struct Traffic {
    stop: Arc<AtomicBool>,
    visitors: Arc<AtomicU64>,
    strangers: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (visitors, strangers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let edge = edge::EDGE.parse().unwrap();
        let threads = {
            let (stop, visitors, strangers) = (stop.clone(), visitors.clone(), strangers.clone());
            // Threads that are made over there stay there.
            lab.neighbour.run(move || {
                let mut threads = Vec::new();
                for _ in 0..4 {
                    let (stop, strangers) = (stop.clone(), strangers.clone());
                    threads.push(thread::spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let came = edge::connect_from(
                                STRANGER.parse().unwrap(),
                                edge,
                                Duration::from_millis(25),
                            );
                            assert!(came.is_err(), "the stranger came in");
                            strangers.fetch_add(1, Ordering::Relaxed);
                        }
                    }));
                }
                threads.push(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // A veth pair may lose a packet while XDP comes to one of its ends; the next SYN is a second later.
                        edge::connect_from(VISITOR.parse().unwrap(), edge, Duration::from_secs(5)).unwrap();
                        visitors.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                    }
                }));
                threads
            })
        };
        lab.take_all_in(&stop);
        Self { stop, visitors, strangers, threads }
    }

    fn wait_for_more(&self) {
        let (visitors, strangers) =
            (self.visitors.load(Ordering::Relaxed), self.strangers.load(Ordering::Relaxed));
        self.wait_until(|| {
            self.visitors.load(Ordering::Relaxed) >= visitors + 20
                && self.strangers.load(Ordering::Relaxed) >= strangers + 8
        });
    }

    fn wait_until(&self, holds: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "somebody was misjudged");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// How many of both there were. Panics if one of them was misjudged.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.visitors.load(Ordering::Relaxed), self.strangers.load(Ordering::Relaxed))
    }
}

/// The promise of the whole-set swap: while lists change without pause, a source that is on all of them is never
/// dropped, and one that is on none never passes.
#[test]
fn no_packet_is_judged_by_half_a_list() {
    in_scratch("no_packet_is_judged_by_half_a_list", |scratch| {
        let _lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();

        let stop = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = [(VISITOR, 2), (STRANGER, 1)]
            .into_iter()
            .map(|(source, verdict)| {
                let (stop, bpffs) = (Arc::clone(&stop), scratch.bpffs.clone());
                thread::spawn(move || flood(&bpffs, source, verdict, &stop))
            })
            .collect();
        // The lists around them change altogether, in number, length and order.
        let lists: [&[&str]; 3] = [
            &["192.0.2.0/24"],
            &["10.0.0.0/8", "192.0.2.10/32", "198.51.100.11/32"],
            &["0.0.0.0/2", "192.0.0.0/14", "198.51.100.0/29", "224.0.0.0/3"],
        ];
        for generation in 2..102 {
            kernel.apply(&desired(generation, lists[generation as usize % lists.len()])).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            let packets = flood.join().unwrap();
            assert!(packets > 100_000, "only {packets} packets were judged meanwhile");
        }
        assert_eq!(kernel.status().unwrap().generation, Some(101));
    });
}

/// A daemon that is killed anywhere in a reload leaves a gate that judges by one of its lists, and that the next one
/// can take over and change.
#[test]
fn a_crash_in_the_middle_of_a_reload_misjudges_nobody() {
    in_scratch("a_crash_in_the_middle_of_a_reload_misjudges_nobody", |scratch| {
        let lab = Lab::new(scratch);
        Kernel::open(&scratch.bpffs).unwrap().apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let floods = [(VISITOR, 2), (STRANGER, 1)].map(|(source, verdict)| {
            let (stop, bpffs) = (Arc::clone(&stop), scratch.bpffs.clone());
            thread::spawn(move || flood(&bpffs, source, verdict, &stop))
        });
        for round in 0..12 {
            let mut reloading = Loader::start_reloading(scratch);
            // Not a wait for something: a moment that differs from round to round.
            thread::sleep(Duration::from_micros(1_000 + 7_919 * round));
            reloading.kill();
            lab.comes_in(VISITOR);
            lab.is_dropped(STRANGER, || kernel::observe(&scratch.bpffs).unwrap().unwrap());
        }
        let mut next = Kernel::open(&scratch.bpffs).unwrap();
        let applied = next.apply(&desired(1000, &["192.0.2.0/24"])).unwrap();
        assert_eq!(applied.interfaces[0].change, Change::Adopted);
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            assert!(flood.join().unwrap() > 1_000);
        }
        assert_eq!(next.status().unwrap().generation, Some(1000));
        lab.is_dropped(STRANGER, || next.status().unwrap());
    });
}

#[test]
fn two_daemons_do_not_look_after_one_gate() {
    in_scratch("two_daemons_do_not_look_after_one_gate", |scratch| {
        let lab = Lab::new(scratch);
        let mut first = Loader::start(scratch);
        let Err(fault) = Kernel::open(&scratch.bpffs) else { panic!("there were two") };
        let sentence = fault.to_string();
        assert!(sentence.starts_with("another `weir run` looks after the gate pinned below "), "{sentence}");
        assert!(!fault.is_unavailable());
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel::observe(&scratch.bpffs).unwrap().unwrap());
        // The lock dies with its holder.
        first.kill();
        Kernel::open(&scratch.bpffs).unwrap();
    });
}

#[test]
fn what_somebody_else_pinned_in_our_place_is_left_alone_and_told() {
    in_scratch("what_somebody_else_pinned_in_our_place_is_left_alone_and_told", |scratch| {
        let lab = Lab::new(scratch);
        let links = scratch.bpffs.join("weir/v2/links");
        std::fs::create_dir_all(&links).unwrap();
        // Of a type whose number is that of a link at XDP.
        let theirs = aya::maps::PerCpuArray::<_, u64>::create(1, 0).unwrap();
        theirs.pin(links.join("edge0")).unwrap();
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let fault = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap_err();
        assert!(matches!(fault, KernelFault::ForeignPin { .. }), "{fault}");
        aya::maps::MapInfo::from_pin(links.join("edge0")).unwrap();

        std::fs::remove_file(links.join("edge0")).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

/// Has the kernel judge one source's packet over and over, and checks every verdict. Gives how many there were.
fn flood(bpffs: &Path, source: &str, verdict: u32, stop: &AtomicBool) -> u64 {
    let mut ebpf = programs_over(bpffs);
    let xdp: &mut Xdp = ebpf.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
    xdp.load().unwrap();
    let packet = packet::ipv4(source, "203.0.113.1", packet::TCP).tcp(443, 0x02);
    let mut packets = 0;
    while !stop.load(Ordering::Relaxed) {
        // One at a time: of several in one run, only the last verdict is told.
        let data_in = Some(packet.0.as_slice());
        let ran = xdp.test_run(TestRunOptions { data_in, repeat: 1, ..TestRunOptions::default() }).unwrap();
        assert_eq!(ran.return_value, verdict, "{source} after {packets} packets");
        packets += 1;
    }
    packets
}

/// bpffs shows two files of its own.
fn not_debug(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| !entry.file_name().to_string_lossy().ends_with(".debug"))
}

/// Not a test: what [`Loader`] runs in a process of its own, told by the environment.
#[test]
fn loader() {
    loading::load();
}

#[test]
fn explain_answers_also_for_udp_once_it_is_loaded() {
    in_scratch("explain_answers_also_for_udp_once_it_is_loaded", |scratch| {
        let _lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let mut both = desired(1, &["192.0.2.0/24"]);
        both.guarded[0].protocols = vec![Protocol::Tcp, Protocol::Udp];
        kernel.apply(&both).unwrap();
        let program = scratch.bpffs.join("weir/v2/progs").join(names::GATE_EXPLAIN);
        assert!(!program.exists(), "it would make each start longer");
        kernel.make_explainable().unwrap();
        assert!(program.exists());

        let explainer = Explainer::open(&scratch.bpffs).unwrap().unwrap();
        let guarded: Vec<_> = explainer.guards().unwrap().into_iter().map(|guard| guard.protocol).collect();
        assert_eq!(guarded, [Protocol::Tcp, Protocol::Udp]);
        for (from, outcome) in [(VISITOR, Outcome::Admitted), (STRANGER, Outcome::Dropped)] {
            for made in [proxy_user::packet::syn, proxy_user::packet::datagram] {
                let frame = made(from.parse().unwrap(), edge::EDGE.parse().unwrap()).unwrap();
                assert_eq!(explainer.explain(&frame).unwrap().outcome, outcome, "{from}");
            }
        }
    });
}
