//! What it costs to carry connections untouched, against plain IP forwarding and against HAProxy, all in one run and over the
//! same wires: a client, the edge, a server, each in a namespace of its own.
//!
//! The CPU of the whole path counts: the client's and the server's, which live in this process, and the proxy's. A packet's way
//! through veth pairs is walked by whoever sends it, so nearly all that the kernel does is on somebody's account. Ways are measured
//! in turn, round after round; noise only ever adds, so the smallest value of the rounds counts.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::{rounded, sni_relay};

mod hooks;
mod soak;
mod stage;
mod work;

use stage::{Stage, Way};
use work::Work;

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    /// How often each way is measured. 0: not at all.
    pub rounds: usize,
    /// Minutes of many connections a second; 0: none.
    pub minutes: u64,
    pub connections_per_second: u32,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rounds + options.minutes as usize > 0, "nothing to measure: give at least one round");
    let stage = Stage::set_up()?;
    let (mut ratios, mut figures) = (Map::new(), Map::new());
    if options.rounds > 0 {
        compare(options, &stage, &mut ratios, &mut figures)?;
    }
    if options.minutes > 0 {
        let time = Duration::from_secs(60 * options.minutes);
        let soaked = soak::run(&stage, options.connections_per_second, time)?;
        say(options, &soaked.to_string());
        soaked.tell(&mut figures);
    }
    if options.json {
        anstream::println!("{}", json!({ "bench": "passthrough", "ratios": ratios, "figures": figures }));
    }
    Ok(())
}

/// Each way does each work, in turn.
fn compare(
    options: &Options,
    stage: &Stage,
    ratios: &mut Map<String, Value>,
    figures: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let mut results: BTreeMap<(Way, Work), Vec<f64>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for work in Work::ALL {
            for way in Way::ALL.into_iter().filter(|way| way.does(work)) {
                let cost =
                    stage.measure(way, work, round == 0).with_context(|| format!("{way:?}, {work:?}"))?;
                // Round 0 warms up.
                if round > 0 {
                    results.entry((way, work)).or_default().push(cost);
                    anstream::eprintln!("  round {round}: {:<11} {:<13} {cost:.2}", way.name(), work.name());
                }
            }
        }
    }
    let least = |way, work| -> f64 {
        results.get(&(way, work)).into_iter().flatten().copied().fold(f64::INFINITY, f64::min)
    };
    let against = |other, work| least(Way::Kernel, work) / least(other, work);
    let per_gb = |way| {
        let each = [Work::Down, Work::Up].map(|work| least(way, work) / least(Way::Forwarding, work));
        each[0].max(each[1])
    };
    for (key, ratio) in [
        ("nat_cpu_per_gb_vs_forwarding", per_gb(Way::Kernel)),
        ("nat_cpu_per_conn_vs_forwarding", against(Way::Forwarding, Work::Connections)),
        ("nat_cpu_per_conn_vs_haproxy", against(Way::HaProxy, Work::Connections)),
        ("nat_rtt_p50_vs_forwarding", against(Way::Forwarding, Work::PingPong)),
        ("sni_kernel_cpu_per_gb_vs_forwarding", per_gb(Way::Named)),
    ] {
        ratios.insert(key.to_owned(), rounded(ratio));
        say(options, &format!("{key:<40} {ratio:.2}"));
    }
    let relay = sni_relay::run(options.rounds).context("the relay by name")?;
    ratios.insert("sni_relay_cpu_per_gb_vs_haproxy".to_owned(), rounded(relay.ratio()));
    say(options, &format!("{:<40} {:.2}", "sni_relay_cpu_per_gb_vs_haproxy", relay.ratio()));
    for (name, cost) in
        [("sni_relay", relay.ours), ("sni_relay_haproxy", relay.haproxy), ("sni_relay_direct", relay.direct)]
    {
        figures.insert(format!("{name}_cpu_s_per_gb"), rounded(cost));
    }
    let hooks = hooks::run().context("one packet")?;
    for (name, nanoseconds) in [("packet_tc_ns", hooks.tc), ("packet_xdp_ns", hooks.xdp)] {
        figures.insert(name.to_owned(), rounded(nanoseconds));
        say(options, &format!("{name:<40} {nanoseconds:.0}"));
    }
    for (way, work) in results.keys() {
        figures.insert(format!("{}_{}", way.name(), work.name()), rounded(least(*way, *work)));
    }
    figures.insert("rounds".to_owned(), options.rounds.into());
    Ok(())
}

/// For people: not on stdout when a program reads that.
fn say(options: &Options, line: &str) {
    if options.json {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}

/// Where the edge carries connections to, and where to many of them.
const SERVER_PORT: u16 = 9000;
const MANY_SERVER_PORT: u16 = 9001;
