//! `weir upgrade`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::{Failure, admin::AdminArgs, print};

#[derive(Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The new binary [default: what lies now where the running one was started from]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &UpgradeArgs) -> Result<(), Failure> {
    let binary = args.binary.as_deref().map(std::path::absolute).transpose();
    let binary = binary.map_err(|error| Failure::Failed(format!("`--binary`: {error}")))?;
    let answer = args.admin.order("/api/v1/upgrade", &json!({ "binary": binary }))?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let text = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
    print(&format!(
        "weir {} serves (process {}, after {} ms); connections of the old one (process {}) may go on for {} s\n",
        text("version"),
        answer["pid"],
        answer["took_ms"],
        answer["old_pid"],
        answer["old_ends_within_seconds"],
    ))
}
