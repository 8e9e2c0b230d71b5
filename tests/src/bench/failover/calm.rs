//! Nobody is ill: are long pages and streams left in peace, and healthy servers in service, while Weir is under full load?

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::super::http::peers::Peer;
use super::proxies::Proxy;
use crate::lab::{
    Lab,
    load::{Load, Record},
    process::Process,
};

/// Longer than any page or stream takes.
const LONG: Duration = Duration::from_secs(90);

/// As many as keep a machine of two cores busy.
const CONNECTIONS: usize = 64;

/// What Weir writes when it takes a server out.
const DOWN: &str = "server is down";

#[derive(Debug, Default)]
pub struct Calm {
    /// Pages of 10 s and streams of 60 s, by proxy, and those that were cut.
    pub long: Vec<usize>,
    pub cut: Vec<usize>,
    pub false_down: usize,
    pub per_second: f64,
}

impl Calm {
    pub fn watch(lab: &Lab, proxies: &[Proxy], lasts: Duration, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let weir = proxies.iter().find(|proxy| proxy.name == "weir").context("weir isn't there")?;
        let taken_out = |weir: &Proxy| weir.process.log_text().matches(DOWN).count();
        let before = taken_out(weir);
        say(&format!("calm: {} s at full load", lasts.as_secs()));

        // 1. Full load on Weir, long pages and streams through all.
        let wrk = if lasts.is_zero() { None } else { Some(full_load(lab, weir, lasts)?) };
        let mut loads = Vec::new();
        for proxy in proxies {
            let patient = proxy.browser.clone().with_patience(LONG);
            let pages = Load::start(&lab.visitor, &patient, "/slow?ms=10000", 2)?;
            let streams = Load::start(&lab.visitor, &patient, "/drip?n=600&ms=100", 1)?;
            loads.push((pages, streams));
        }
        let until = Instant::now() + lasts.saturating_sub(LONG).max(Duration::from_secs(15));
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left);
        }

        // 2. What came of the long ones.
        let mut calm = Self::default();
        loads.iter().for_each(|(pages, streams)| [pages, streams].into_iter().for_each(Load::cease));
        for (pages, streams) in loads {
            let mut records: Vec<Record> = Vec::new();
            for load in [pages, streams] {
                records.extend(load.stop_within(LONG)?);
            }
            calm.long.push(records.len());
            calm.cut.push(records.iter().filter(|record| !record.is_served()).count());
        }

        // 3. And of the servers.
        if let Some(mut wrk) = wrk {
            wrk.wait(lasts + LONG)?;
            let text = wrk.log_text();
            let requests = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
            calm.per_second = requests
                .and_then(|number| number.trim().parse().ok())
                .with_context(|| format!("wrk made no requests:\n{text}"))?;
            ensure!(
                !text.contains("Non-2xx"),
                "not every request under full load was answered well:\n{text}"
            );
        }
        calm.false_down = taken_out(weir) - before;
        Ok(calm)
    }
}

fn full_load(lab: &Lab, weir: &Proxy, lasts: Duration) -> anyhow::Result<Process> {
    let mut command: Command = lab.visitor.command(Peer::find("wrk")?.program)?;
    command.args(["-t", "1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{}s", lasts.as_secs())]);
    command.arg(format!("http://{}/", weir.at));
    Process::start("wrk", command, &lab.folder().join("bench/wrk.log"))
}
