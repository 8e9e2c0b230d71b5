//! `weir block add`, `list` and `remove`

use std::{fmt::Write as _, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    admin::status::blocks::BlocksDocument,
    cli::{
        Failure,
        admin::{AdminArgs, fleet_knows},
        print,
    },
    config::parse_duration,
};

#[derive(Debug, Subcommand)]
pub enum BlockCommand {
    /// Drop everything that an address or prefix sends to entrypoints, for so long
    Add(AddArgs),
    /// Show who is blocked, why, until when, and how many packets that has kept out
    List(ListArgs),
    /// End a block now
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// An address or a prefix: 203.0.113.9, 198.51.100.0/24, 2001:db8::/48
    prefix: String,
    /// How long: 10m, 1h, 24h; or forever
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Span,
    /// What it is for, for whoever reads the list later
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Also where it hits a CDN's addresses, and all visitors behind them
    #[arg(long)]
    cdn: bool,
    /// Also where it cuts off your own session or the admin address
    #[arg(long)]
    force: bool,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// As it was added
    prefix: String,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Span {
    For(Duration),
    Forever,
}

pub fn run(command: &BlockCommand) -> Result<(), Failure> {
    match command {
        BlockCommand::Add(args) => add(args),
        BlockCommand::List(args) => list(args),
        BlockCommand::Remove(args) => remove(args),
    }
}

fn span(text: &str) -> Result<Span, String> {
    if text == "forever" {
        return Ok(Span::Forever);
    }
    parse_duration(text).map(Span::For).map_err(|refusal| {
        let hint = refusal.hint.unwrap_or_default();
        format!("it {}: {hint}; or `forever`", refusal.because)
    })
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let for_ms = match args.span {
        Span::For(span) => Some(span.as_millis() as u64),
        Span::Forever => None,
    };
    let order = json!({
        "prefix": args.prefix,
        "for_ms": for_ms,
        "forever": for_ms.is_none(),
        "why": args.why,
        "cdn": args.cdn,
        "force": args.force,
        "here": args.here,
        "ssh": super::apply::ssh(),
    });
    let answer = args.admin.order("/api/v1/blocks/add", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let block = &answer["block"];
    let until =
        block["until"].as_str().map_or_else(|| "for ever".to_owned(), |until| format!("until {until}"));
    let prefix = block["prefix"].as_str().unwrap_or(&args.prefix);
    let renewed = if answer["replaced"].is_null() { "" } else { ", in place of the block that there was" };
    print(&format!("{prefix} is blocked {until}{renewed}\n{}", fleet_knows(&answer)))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let (status, body) = args.admin.get("/api/v1/blocks")?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}: is it another version?")));
    }
    if args.json {
        return print(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let document: BlocksDocument = serde_json::from_slice(&body).map_err(|error| {
        Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
    })?;
    print(&text(&document))
}

fn text(document: &BlocksDocument) -> String {
    if document.blocks.is_empty() {
        return "nobody is blocked\n".to_owned();
    }
    let mut text = format!("{:<32} {:<22} {:>12}  why\n", "prefix", "until", "packets");
    for one in &document.blocks {
        let prefix = one.block.prefix.to_string();
        let until = one
            .block
            .until
            .map_or_else(|| "for ever".to_owned(), |until| until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let packets = one.packets.map_or_else(|| "–".to_owned(), |packets| packets.to_string());
        let cdn = if one.block.cdn { " (CDN too)" } else { "" };
        let from = one.from.as_ref().map(|from| format!(" (said at {from})")).unwrap_or_default();
        // Writing to a String can't fail.
        let _ = writeln!(text, "{prefix:<32} {until:<22} {packets:>12}  {}{cdn}{from}", one.block.why);
    }
    if document.turned_away > 0 {
        let _ = writeln!(text, "connections turned away at accept: {}", document.turned_away);
    }
    text
}

fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let answer =
        args.admin.order("/api/v1/blocks/remove", &json!({ "prefix": args.prefix, "here": args.here }))?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let prefix = answer["removed"]["prefix"].as_str().unwrap_or(&args.prefix);
    print(&format!("{prefix} is not blocked any more\n{}", fleet_knows(&answer)))
}
