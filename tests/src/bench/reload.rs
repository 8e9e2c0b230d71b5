//! Lists are swapped whole, again and again, under a flood: is any packet judged wrongly, and how long does a swap
//! take?
//!
//! One guarded port is flooded only from sources that are on every list that comes, another only from sources that
//! are on none. Whatever is dropped at the first or passes at the second is wrong, also if a list isn't there for a
//! moment. The lists differ in size, so that every swap but the last changes the structure that is looked up in.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, ensure};
use ipnet::IpNet;
use proxy_user::{
    config::model::{KernelMode, SynCookies},
    kernel::{Desired, Guarded, Kernel, NamedList, observe},
};
use serde_json::json;

use super::{
    host::{EDGE_V4, Host, Neighbour, with_host},
    lists, rounded,
    sending::{packet, send, stay_on_a_core},
};

const SWAPS: u64 = 300;
/// At each size, one after the other.
const TIMED: usize = 5;
const STRANGERS_PORT: u16 = 444;

struct Swapped {
    wrong: u64,
    packets: usize,
    /// Prefixes, and the median in milliseconds.
    times: Vec<(usize, f64)>,
}

/// Swaps, and says what it saw; `json`: once more, for programs, as the last line. A wrong verdict is a failure.
pub fn run(json: bool) -> anyhow::Result<()> {
    let Swapped { wrong, packets, times } = with_host(measure)?;
    anstream::println!("{SWAPS} swaps under a flood of {packets} packets: {wrong} wrong verdicts");
    for (prefixes, milliseconds) in &times {
        anstream::println!("a swap of {prefixes:>9} prefixes: {milliseconds:>8.1} ms");
    }
    if json {
        let figures: serde_json::Map<_, _> = times
            .iter()
            .map(|(prefixes, milliseconds)| (format!("swap_ms_{prefixes}"), rounded(*milliseconds)))
            .chain([("packets".to_owned(), packets.into())])
            .collect();
        anstream::println!(
            "{}",
            json!({ "bench": "reload", "wrong_verdicts": wrong, "swaps": SWAPS, "figures": figures })
        );
    }
    ensure!(wrong == 0, "{wrong} packets were judged wrongly");
    Ok(())
}

fn measure(host: &Host) -> anyhow::Result<Swapped> {
    let neighbour = Neighbour::new()?;
    neighbour.connect("edge0", "sender0")?;
    let mut kernel = Kernel::open(&host.bpffs)?;
    let mut generation = 0;
    let mut apply = |prefixes: Arc<[IpNet]>| {
        generation += 1;
        let lists = vec![NamedList { name: "bench".into(), cdn: false, prefixes }];
        let port = |name: &str, address: String| -> anyhow::Result<Guarded> {
            Ok(Guarded {
                entrypoint: name.into(),
                bind: vec![address.parse()?],
                lists: lists.clone(),
                protocols: vec![proxy_user::kernel::Protocol::Tcp],
                shadow: false,
                limit: None,
                syn_cookies: SynCookies::OFF,
            })
        };
        let strangers = EDGE_V4.replace("443", &STRANGERS_PORT.to_string());
        let applied = kernel.apply(&Desired {
            generation,
            interfaces: vec!["edge0".into()],
            mode: KernelMode::Xdp,
            log: false,
            guarded: vec![port("listed", EDGE_V4.to_owned())?, port("strangers", strangers)?],
        });
        applied.map(drop).context("a swap failed")
    };

    // 1. The flood, over everything that follows.
    let few: Arc<[IpNet]> = lists::cloudflare().into();
    let many: Arc<[IpNet]> = lists::spread(5_000).into();
    apply(few.clone())?;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flooding = std::thread::scope(|scope| -> anyhow::Result<Vec<(usize, f64)>> {
        let (asked, counted) = (stop.clone(), sent.clone());
        let neighbour = &neighbour;
        let flood = scope.spawn(move || {
            neighbour.run(move || -> anyhow::Result<()> {
                stay_on_a_core()?;
                let mut packets: Vec<_> = (0..2048_u32)
                    .flat_map(|n| {
                        // 104.16.0.0/13 is Cloudflare's, 203.0.113.0/24 nobody's.
                        let listed = Ipv4Addr::from(u32::from(Ipv4Addr::new(104, 16, 0, 0)) + n * 251);
                        let stranger = Ipv4Addr::new(203, 0, 113, n as u8);
                        [packet(listed, 443), packet(stranger, STRANGERS_PORT)]
                    })
                    .collect();
                send("sender0", &mut packets, usize::MAX, |so_far| {
                    counted.store(so_far, Ordering::Relaxed);
                    !asked.load(Ordering::Relaxed)
                })
            })
        });
        let swapping = (|| {
            // 2. Swaps between structures.
            for swap in 0..SWAPS {
                apply(if swap % 2 == 0 { many.clone() } else { few.clone() })?;
            }
            // 3. Swaps at three sizes, each of which is another list than the one before.
            let mut times = Vec::new();
            for (size, list) in [
                (22, lists::cloudflare()),
                (10_000, lists::spread(10_000 / 2)),
                (1_000_000, lists::spread(1_000_000 / 2)),
            ] {
                let changed = |n: usize| -> anyhow::Result<Arc<[IpNet]>> {
                    let one: IpNet = format!("192.0.2.{n}/32").parse()?;
                    Ok(list.iter().copied().chain([one]).collect())
                };
                let mut took = Vec::new();
                for n in 0..TIMED {
                    let list = changed(n)?;
                    let begun = Instant::now();
                    apply(list)?;
                    took.push(begun.elapsed().as_secs_f64() * 1e3);
                }
                took.sort_by(f64::total_cmp);
                times.push((size, took[TIMED / 2]));
            }
            Ok(times)
        })();
        stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))???;
        swapping
    });
    let times = flooding?;

    // 4. What came of it.
    let status = observe(&host.bpffs)?.context("the gate is gone")?;
    let of =
        |name: &str| status.entrypoints.iter().find(|entry| entry.name == name).context("no such entrypoint");
    let (listed, strangers) = (of("listed")?, of("strangers")?);
    let right = listed.passed.packets.min(strangers.dropped.values().map(|tally| tally.packets).sum());
    let packets = sent.load(Ordering::Relaxed);
    ensure!(
        right as usize > packets / 4,
        "only {right} of {packets} packets of a kind arrived: that proves nothing"
    );
    let missing = strangers.dropped.get("list_missing").map_or(0, |tally| tally.packets);
    let wrong =
        listed.dropped.values().map(|tally| tally.packets).sum::<u64>() + strangers.passed.packets + missing;
    Ok(Swapped { wrong, packets, times })
}
