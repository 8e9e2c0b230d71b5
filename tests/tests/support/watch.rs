//! `weir watch` as a process of a test.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_lab::{
    Lab,
    lab::{process::Process, stand::PATIENCE, wait, weir},
};

/// A `weir watch` in the edge.
pub struct Watch {
    pub process: Process,
}

impl Watch {
    /// The gate has been told that somebody watches when this returns.
    pub fn start(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = lab.edge.command(weir::program()?)?;
        command.arg("watch").args(arguments).env("NO_COLOR", "1").env("WEIR_BPFFS", lab.bpffs());
        let log = lab.folder().join("watch.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Process::start("weir watch", command, &log)?;
        let watched = proxy_common::names::GATE_WATCHED;
        let before = until(lab, watched)?;
        wait::until_true("somebody watches", PATIENCE, || {
            ensure!(process.ended()?.is_none(), "it ended at once: {}", process.log_text());
            let now = until(lab, watched)?;
            Ok(now != 0 && now != before || now > monotonic()? + 2_000_000_000)
        })?;
        Ok(Self { process })
    }

    pub fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.process.log_text();
        // The last line may be being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    pub fn drops(&self) -> anyhow::Result<Vec<Value>> {
        Ok(self.lines()?.into_iter().filter(|line| line["event"] == "drop").collect())
    }
}

/// Until when the gate is told to be watched.
fn until(lab: &Lab, name: &str) -> anyhow::Result<u64> {
    use proxy_common::event::Watched;
    let map = aya::maps::MapData::from_pin(weir_lab::lab::pinned::map(lab, name))?;
    let map: aya::maps::Array<_, Watched> = aya::maps::Map::from_map_data(map)?.try_into()?;
    Ok(map.get(&0, 0)?.until)
}

fn monotonic() -> anyhow::Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}
