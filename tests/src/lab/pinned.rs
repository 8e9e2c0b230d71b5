//! The gate as anybody can see it: the maps that are pinned in the lab's bpffs, read with bpftool.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail};
use serde_json::Value;

use super::Lab;

/// The pin of a map.
pub fn map(lab: &Lab, name: &str) -> PathBuf {
    lab.bpffs().join("weir/v1/maps").join(name)
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

fn bpftool(arguments: &[&str]) -> anyhow::Result<String> {
    let program = crate::needs::find_program("bpftool").context("bpftool isn't installed")?;
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("bpftool {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
