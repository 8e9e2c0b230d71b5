//! `weir reload`

use clap::Args;
use serde_json::json;

use crate::cli::{Failure, admin::AdminArgs, print};

#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReloadArgs) -> Result<(), Failure> {
    let answer = args.admin.order("/api/v1/reload", &json!({}))?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    print(&format!("taken over: generation {} runs\n", answer["generation"]))
}
