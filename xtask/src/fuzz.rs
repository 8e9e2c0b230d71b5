//! Feeding the gate's logic with bytes that nobody would think of, by cargo-fuzz.
//!
//! cargo-fuzz wants a compiler that lets sanitizers be switched on: the stable one does, when told so.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::{Workspace, output_of};

#[derive(clap::Args)]
pub struct Arguments {
    /// What to fuzz: a file of fuzz/fuzz_targets
    #[arg(default_value = "gate")]
    target: String,
    /// For how long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    if output_of(workspace.cargo().args(["fuzz", "--version"])).is_err() {
        bail!("cargo-fuzz isn't installed: `cargo install --locked cargo-fuzz` does that");
    }
    let status = workspace
        .cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", &arguments.target, "--target-dir"])
        .arg(workspace.target.join("fuzz"))
        .arg("--")
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg("-max_len=512")
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
