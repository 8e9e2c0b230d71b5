//! Servers that die, hang, vanish, answer 503, start slowly and flap, under a steady load: what becomes of the requests.
//!
//! Weir, nginx and HAProxy stand side by side at one edge, in front of the same two servers (real processes, in namespaces of
//! their own), and each has a load of its own: GETs at 100/s for pages that take 20 ms, POSTs at 20/s. Each fault hits
//! server one for two seconds. Then the same with server one alone. Last a long calm: nobody is ill, one proxy is under
//! full load, and long pages and streams go through it.

mod calm;
mod faults;
mod proxies;
mod scene;

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::rounded;
use crate::{
    lab::{
        Lab,
        server::{Server, Which},
    },
    needs::Need,
};
use calm::Calm;
use faults::Fault;
use proxies::{Proxy, Setting};
use scene::{Seen, play};

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub rounds: usize,
    pub minutes: u64,
}

/// What became of one proxy's requests, over all scenes.
#[derive(Debug, Default)]
pub struct Tally {
    /// By the number of servers: GETs, those that failed, and each fault's part of these.
    pub gets: [usize; 2],
    pub failed_gets: [usize; 2],
    pub failed_by: [Vec<(Fault, usize)>; 2],
    pub posts: usize,
    pub failed_posts: usize,
    pub duplicated_posts: usize,
    /// Milliseconds.
    pub hang_waits: Vec<f64>,
    pub gone_waits: Vec<f64>,
    pub recoveries: Vec<f64>,
}

/// Plays everything, and says what it saw; `json`: once more, for programs, as the last line.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        options.rounds > 0 || options.minutes > 0,
        "nothing to measure: give at least one round or minute"
    );
    for need in
        [Need::Root, Need::Weir, Need::Program("nginx"), Need::Program("haproxy"), Need::Program("wrk")]
    {
        need.met().map_err(anyhow::Error::msg)?;
    }
    let lab = Lab::build()?;
    let mut tallies = [Tally::default(), Tally::default(), Tally::default()];
    let mut one = Server::start(&lab, Which::One)?;
    let two = Server::start(&lab, Which::Two)?;
    for setting in [Setting::TwoServers, Setting::OneServer] {
        let proxies = Proxy::start_all(&lab, setting)?;
        for round in 1..=options.rounds {
            for fault in Fault::ALL {
                say(options, &format!("round {round}, {}: {}", setting.name(), fault.name()));
                let seen = play(&lab, &proxies, &mut one, fault)?;
                for ((proxy, tally), seen) in proxies.iter().zip(&mut tallies).zip(&seen) {
                    say(options, &format!("  {:>8}: {}", proxy.name, seen.told(setting)));
                    tally.add(setting, fault, seen);
                }
            }
        }
    }
    if options.rounds > 0 {
        scene::count_duplicates(&lab, &mut tallies)?;
    }
    let proxies = Proxy::start_all(&lab, Setting::TwoServers)?;
    let calm = Calm::watch(&lab, &proxies, Duration::from_secs(60 * options.minutes), |line| {
        say(options, line);
    })?;
    drop((one, two));
    report(options, &proxies, &tallies, &calm);
    Ok(())
}

fn report(options: &Options, proxies: &[Proxy], tallies: &[Tally], calm: &Calm) {
    say(options, "");
    say(options, &format!("{:<58}{:>10}{:>10}{:>10}", "", "weir", "nginx", "haproxy"));
    let line = |title: &str, value: &dyn Fn(usize) -> String| {
        let values: String = (0..proxies.len()).map(|index| format!("{:>10}", value(index))).collect();
        say(options, &format!("{title:<58}{values}"));
    };
    for (index, setting) in [Setting::TwoServers, Setting::OneServer].into_iter().enumerate() {
        line(&format!("{}: GETs", setting.name()), &|at| tallies[at].gets[index].to_string());
        line(&format!("{}: failed GETs", setting.name()), &|at| tallies[at].failed_gets[index].to_string());
        for fault in Fault::ALL {
            line(&format!("    {}", fault.name()), &|at| tallies[at].failed_of(index, fault).to_string());
        }
    }
    line("POSTs", &|at| tallies[at].posts.to_string());
    line("POSTs that failed (no answer, no page)", &|at| tallies[at].failed_posts.to_string());
    line("POSTs that servers got twice", &|at| tallies[at].duplicated_posts.to_string());
    line("p99 from the hang to an answer, ms", &|at| format!("{:.0}", p99(&tallies[at].hang_waits)));
    line("p99 from the host's end to an answer, ms", &|at| format!("{:.0}", p99(&tallies[at].gone_waits)));
    line("longest from health to an answer (one server), ms", &|at| {
        format!("{:.0}", longest(&tallies[at].recoveries))
    });
    line("pages of 10 s and streams of 60 s that were cut", &|at| {
        format!("{}/{}", calm.cut[at], calm.long[at])
    });
    let minutes = options.minutes;
    say(
        options,
        &format!(
            "weir, {minutes} min at full load ({:.0}/s): servers wrongly taken out {} times",
            calm.per_second, calm.false_down
        ),
    );
    if options.json {
        let mut figures = Map::new();
        for ((proxy, tally), at) in proxies.iter().zip(tallies).zip(0..) {
            let key = |name: &str| match proxy.name {
                "weir" => name.to_owned(),
                peer => format!("{peer}_{name}"),
            };
            figures.insert(key("gets"), tally.gets[0].into());
            figures.insert(key("gets_one_server"), tally.gets[1].into());
            figures.insert(key("failed_gets"), tally.failed_gets[0].into());
            figures.insert(key("failed_gets_one_server"), tally.failed_gets[1].into());
            figures.insert(key("posts"), tally.posts.into());
            figures.insert(key("duplicated_posts"), tally.duplicated_posts.into());
            figures.insert(key("hang_page_ms_p99"), rounded(p99(&tally.hang_waits)));
            figures.insert(key("host_gone_page_ms_p99"), rounded(p99(&tally.gone_waits)));
            figures.insert(key("recovery_ms"), rounded(longest(&tally.recoveries)));
            figures.insert(key("healthy_cut"), calm.cut[at].into());
        }
        figures.insert("false_down".into(), calm.false_down.into());
        figures.insert("calm_minutes".into(), minutes.into());
        figures.insert("rounds".into(), options.rounds.into());
        figures.extend(proxies.iter().filter_map(|proxy| {
            let version = Value::from(proxy.version.clone()?);
            Some((format!("{}_version", proxy.name), version))
        }));
        anstream::println!("{}", json!({ "bench": "failover", "figures": figures }));
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, setting: Setting, fault: Fault, seen: &Seen) {
        let index = setting as usize;
        let failed = seen.failed_gets(setting);
        self.gets[index] += seen.gets.len();
        self.failed_gets[index] += failed;
        self.failed_by[index].push((fault, failed));
        self.posts += seen.posts.len();
        self.failed_posts += seen.failed_posts();
        match fault {
            Fault::Hang => self.hang_waits.extend(seen.waits()),
            Fault::Gone => self.gone_waits.extend(seen.waits()),
            _ => {}
        }
        if setting == Setting::OneServer {
            self.recoveries.extend(seen.recovery());
        }
    }

    fn failed_of(&self, index: usize, fault: Fault) -> usize {
        self.failed_by[index].iter().filter(|(by, _)| *by == fault).map(|(_, failed)| failed).sum()
    }
}

fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn longest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// For people: not on stdout when a program reads that.
fn say(options: &Options, line: &str) {
    if options.json {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}
