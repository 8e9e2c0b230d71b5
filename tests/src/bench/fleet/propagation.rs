//! How long it takes from the moment in which an operator gives `weir push` until the last of three hosts serves what was pushed:
//! the command's own start, the check, the transaction, the watch, the hosts' validation and swap.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::{Figures, Options, say};
use crate::{
    bench::rounded,
    lab::fleet::{FleetHost, FleetLab, PATIENCE},
    needs::Need,
};

const HOSTS: usize = 3;
/// Pushes in each round: the 99th percentile of few is the longest.
const PUSHES: usize = 25;

/// What the time goes to.
const STAGES: [&str; 3] =
    ["the command, until it writes", "the store, until all have it", "the hosts, until all serve it"];

pub fn measure(options: &Options) -> anyhow::Result<Figures> {
    for need in [Need::Weir, Need::Program("etcd")] {
        need.met().map_err(anyhow::Error::msg)?;
    }
    let lab = FleetLab::up(HOSTS)?;
    ensure!(lab.push("first", &["--wait"])?.code == 0, "the first push failed");
    let mut whole = Vec::new();
    let mut after = Vec::new();
    let mut stages: [Vec<Duration>; STAGES.len()] = Default::default();
    for nth in 0..options.rounds * PUSHES {
        let pushed = push(&lab, &format!("round-{nth}"))?;
        whole.push(pushed.whole);
        after.push(pushed.after);
        // What was pushed before it is the first generation.
        for (all, one) in stages.iter_mut().zip(pushed.stages(&lab, nth as u64 + 2)?) {
            all.push(one);
        }
    }
    let (whole, after) = (sorted(&whole), sorted(&after));
    for (name, stage) in STAGES.iter().zip(&stages) {
        let stage = sorted(stage);
        let [half, most, all] = [50, 90, 100].map(|percent| percentile(&stage, percent));
        say(options, &format!("    {name:<32} half within {half:.1} ms, 90 % {most:.1}, all {all:.1}"));
    }
    say(
        options,
        &format!(
            "  {} pushes to {HOSTS} hosts: half within {:.0} ms, all within {:.0} ms",
            whole.len(),
            percentile(&whole, 50),
            percentile(&whole, 100)
        ),
    );
    Ok(Figures::from_iter([
        ("config_propagation_ms_p50".to_owned(), figure(&whole, 50)),
        ("config_propagation_ms_p99".to_owned(), figure(&whole, 99)),
        ("config_propagation_after_push_ms_p99".to_owned(), figure(&after, 99)),
    ]))
}

/// One push, and when the last host served it.
struct Pushed {
    /// By the clock that hosts log by.
    began: Timestamp,
    /// From the command's start, and from its end, until the last host served it.
    whole: Duration,
    after: Duration,
}

fn push(lab: &FleetLab, generation: &str) -> anyhow::Result<Pushed> {
    let (began, clock) = (Instant::now(), Timestamp::now());
    let served = std::thread::scope(|scope| -> anyhow::Result<_> {
        let looking: Vec<_> =
            lab.hosts.iter().map(|host| scope.spawn(move || first_served(host, generation))).collect();
        let pushed = lab.push(generation, &[])?;
        let ended = Instant::now();
        ensure!(pushed.code == 0, "{pushed:?}");
        let mut last = began;
        for one in looking {
            let at = one.join().map_err(|_| anyhow::anyhow!("whoever looked has panicked"))??;
            last = last.max(at);
        }
        let after = last.saturating_duration_since(ended);
        Ok(Pushed { began: clock, whole: last.duration_since(began), after })
    });
    served.with_context(|| lab.hosts.iter().map(FleetHost::log).collect::<Vec<_>>().join("\n"))
}

impl Pushed {
    /// What the time went to, at the host that was the last at each of them.
    fn stages(&self, lab: &FleetLab, generation: u64) -> anyhow::Result<[Duration; STAGES.len()]> {
        let decided = lab.decided(generation)?;
        let mut came = decided;
        for host in &lab.hosts {
            let log = host.log();
            let word = format!("generation={generation} ");
            let is_it = |line: &&str| line.contains("came from the store") && line.contains(&word);
            let line =
                log.lines().find(is_it).with_context(|| format!("no generation {generation}: {log}"))?;
            let at = line.split_whitespace().next().unwrap_or_default();
            came = came.max(at.parse().with_context(|| format!("no time in {line:?}"))?);
        }
        let times = [self.began, decided, came, self.began + self.whole];
        let passed =
            |nth: usize| Duration::try_from(times[nth + 1].duration_since(times[nth])).unwrap_or_default();
        Ok(std::array::from_fn(passed))
    }
}

/// When a host served it first.
fn first_served(host: &FleetHost, generation: &str) -> anyhow::Result<Instant> {
    let late = Instant::now() + PATIENCE;
    while Instant::now() < late {
        if host.served().as_deref() == Some(generation) {
            return Ok(Instant::now());
        }
        // As often as the figure is exact; without a pause, the looking itself would be most of the load.
        std::thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!("{} never served {generation}", host.name)
}

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut times: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Of sorted ones: the least that so many percent don't exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len());
    sorted[rank - 1]
}

fn figure(sorted: &[f64], percent: usize) -> Value {
    rounded(percentile(sorted, percent))
}
