//! How long it takes from the moment in which an operator gives `weir push` until the last of three hosts serves what was pushed:
//! the command's own start, the check, the transaction, the watch, the hosts' validation and swap.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
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

pub fn measure(options: &Options) -> anyhow::Result<Figures> {
    for need in [Need::Weir, Need::Program("etcd")] {
        need.met().map_err(anyhow::Error::msg)?;
    }
    let lab = FleetLab::up(HOSTS)?;
    ensure!(lab.push("first", &["--wait"])?.code == 0, "the first push failed");
    let mut whole = Vec::new();
    let mut after = Vec::new();
    for nth in 0..options.rounds * PUSHES {
        let (taken, since_the_command) = push(&lab, &format!("round-{nth}"))?;
        whole.push(taken);
        after.push(since_the_command);
    }
    let (whole, after) = (sorted(&whole), sorted(&after));
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

/// From the command's start, and from its end, until the last host serves it.
fn push(lab: &FleetLab, generation: &str) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
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
        Ok((last.duration_since(began), last.saturating_duration_since(ended)))
    });
    served.with_context(|| lab.hosts.iter().map(FleetHost::log).collect::<Vec<_>>().join("\n"))
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
