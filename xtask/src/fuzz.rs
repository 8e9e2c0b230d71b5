//! Feeding the gate's logic and the parsers that are ours with bytes that nobody would think of, by cargo-fuzz.
//!
//! cargo-fuzz wants a compiler that lets sanitizers be switched on: the stable one does, when told so.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Workspace, output_of};

#[derive(clap::Args)]
pub struct Arguments {
    /// What to fuzz: files of fuzz/fuzz_targets, without `.rs`; all of them when none is named
    targets: Vec<String>,
    /// For how long, each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    if output_of(workspace.cargo().args(["fuzz", "--version"])).is_err() {
        bail!("cargo-fuzz isn't installed: `cargo install --locked cargo-fuzz` does that");
    }
    let all = if arguments.targets.is_empty() { all(workspace)? } else { arguments.targets.clone() };
    for target in all {
        eprintln!("fuzzing `{target}` for {} s", arguments.seconds);
        let status = workspace
            .cargo()
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", &target, "--target-dir"])
            .arg(workspace.target.join("fuzz"))
            .arg("--")
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg("-max_len=512")
            .status()?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn all(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}
