//! The gate as anybody can see it: the maps that are pinned in the lab's bpffs, read with bpftool.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail};
use proxy_common::names::{GATE_COUNTERS, GATE_ENTRYPOINTS, LAYOUT, MAPS, ROOT};
use serde_json::Value;

use super::Lab;

/// The pin of a map.
pub fn map(lab: &Lab, name: &str) -> PathBuf {
    lab.bpffs().join(ROOT).join(LAYOUT).join(MAPS).join(name)
}

/// What bpftool prints of a map, for people.
pub fn dump(lab: &Lab, name: &str) -> anyhow::Result<String> {
    bpftool(&["map", "dump", "pinned", &map(lab, name).to_string_lossy()])
}

/// What bpftool prints of a map, for programs.
pub fn dump_json(lab: &Lab, name: &str) -> anyhow::Result<Value> {
    let text = bpftool(&["-j", "map", "dump", "pinned", &map(lab, name).to_string_lossy()])?;
    serde_json::from_str(&text).context("bpftool printed something else than JSON")
}

/// Packets that the gate counted for an entrypoint in a field of its counters (`passed`, `not_listed` …), over
/// all CPUs, as bpftool reads them.
pub fn packets(lab: &Lab, entrypoint: &str, field: &str) -> anyhow::Result<u64> {
    let slot = slot(lab, entrypoint)?;
    let counters = dump_json(lab, GATE_COUNTERS)?;
    let entry = formatted(&counters).find(|entry| entry["key"].as_u64() == Some(slot));
    let entry = entry.with_context(|| format!("no counters in slot {slot}"))?;
    let shares = entry["values"].as_array().context("the counters are not per CPU")?;
    shares
        .iter()
        .map(|share| share["value"][field]["packets"].as_u64())
        .sum::<Option<u64>>()
        .with_context(|| format!("the counters have no field `{field}`: {entry}"))
}

/// Where the counters of an entrypoint are.
fn slot(lab: &Lab, entrypoint: &str) -> anyhow::Result<u64> {
    let names = dump_json(lab, GATE_ENTRYPOINTS)?;
    formatted(&names)
        .find(|entry| text(&entry["value"]["name"]) == entrypoint)
        .and_then(|entry| entry["key"].as_u64())
        .with_context(|| format!("the gate knows no entrypoint `{entrypoint}`: {names}"))
}

/// The entries with their fields' names, which bpftool takes from the map's BTF.
fn formatted(dump: &Value) -> impl Iterator<Item = &Value> {
    dump.as_array().into_iter().flatten().map(|entry| entry.get("formatted").unwrap_or(entry))
}

/// Bytes, up to the first NUL.
fn text(bytes: &Value) -> String {
    let bytes: Vec<u8> = bytes
        .as_array()
        .into_iter()
        .flatten()
        .map_while(|byte| u8::try_from(byte.as_u64()?).ok().filter(|&byte| byte != 0))
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn bpftool(arguments: &[&str]) -> anyhow::Result<String> {
    let program = crate::needs::find_program("bpftool").context("bpftool isn't installed")?;
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("bpftool {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
