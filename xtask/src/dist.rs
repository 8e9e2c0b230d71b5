//! placeholder
use crate::workspace::Workspace;
use anyhow::Result;
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct Arguments {}
pub fn run(_w: &Workspace, _a: &Arguments) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
