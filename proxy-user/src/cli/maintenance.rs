//! `weir maintenance`, `weir maintenance on` and `off`

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::json;

use crate::{
    admin::status::maintenance::{MaintenanceDocument, MaintenanceStatus},
    cli::{
        Failure,
        admin::{AdminArgs, fleet_knows},
        print,
    },
    config::{duration, moment::moment_here},
    maintenance::About,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct MaintenanceArgs {
    #[command(subcommand)]
    command: Option<MaintenanceCommand>,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum MaintenanceCommand {
    /// Answer with a page instead of asking servers
    On(OnArgs),
    /// End what was ordered: all of it, or only this
    Off(OffArgs),
}

#[derive(Debug, Args)]
struct OnArgs {
    /// Only requests that take this route; may be given again
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// Only requests for this host, or *.example.com; may be given again
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Who gets through all the same: a prefix, an address or an allowlist; may be given again
    #[arg(long, value_name = "NET")]
    allow: Vec<String>,
    /// A path that gets through, with all that is below it; may be given again
    #[arg(long, value_name = "PATH")]
    except: Vec<String>,
    /// When it begins, if not now: 22:00, 2026-12-01T22:00, 2026-12-01T22:00[Europe/Berlin], 2026-12-01T21:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// When it ends by itself, written likewise; visitors are told to come back then
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "span")]
    until: Option<Timestamp>,
    /// How long it lasts: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Duration>,
    /// What it is for, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// The page that is shown
    #[arg(long, value_name = "NAME", default_value = "maintenance")]
    page: String,
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
struct OffArgs {
    /// The number that `weir maintenance` shows
    #[arg(conflicts_with_all = ["routes", "hosts"])]
    id: Option<u64>,
    /// What was ordered for exactly these routes
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// What was ordered for exactly these hosts
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &MaintenanceArgs) -> Result<(), Failure> {
    match &args.command {
        None => list(args),
        Some(MaintenanceCommand::On(args)) => on(args),
        Some(MaintenanceCommand::Off(args)) => off(args),
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    moment_here(text, &Zoned::now()).map_err(|because| {
        format!("it {because}: write `22:00`, `2026-12-01T22:00` or `2026-12-01T22:00[Europe/Berlin]`")
    })
}

fn span(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|span| match span.as_secs() {
        1..=31_622_400 => Ok(span),
        _ => Err("it takes from 1s to a year".to_owned()),
    })
}

fn on(args: &OnArgs) -> Result<(), Failure> {
    let span = args.span.and_then(|span| SignedDuration::try_from(span).ok());
    let begins = args.from.unwrap_or_else(Timestamp::now);
    let order = json!({
        "routes": args.routes,
        "hosts": args.hosts,
        "allow": args.allow,
        "except": args.except,
        "from": args.from,
        "until": args.until.or_else(|| span.map(|span| begins + span)),
        "page": args.page,
        "why": args.why,
        "here": args.here,
    });
    let answer = args.admin.order("/api/v1/maintenance/begin", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let about = about(&answer["maintenance"])?;
    let replaced = if answer["replaced"].as_array().is_some_and(|all| !all.is_empty()) {
        ", in place of what was ordered before"
    } else {
        ""
    };
    let time = about.time(Timestamp::now());
    print(&format!("maintenance of {}: {time}{replaced}\n{}", about.scope(), fleet_knows(&answer)))
}

fn off(args: &OffArgs) -> Result<(), Failure> {
    let order = json!({ "id": args.id, "routes": args.routes, "hosts": args.hosts, "here": args.here });
    let answer = args.admin.order("/api/v1/maintenance/end", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let mut text = String::new();
    for one in answer["ended"].as_array().into_iter().flatten() {
        text.push_str(&format!("maintenance of {} is over\n", about(one)?.scope()));
    }
    print(&(text + fleet_knows(&answer)))
}

fn list(args: &MaintenanceArgs) -> Result<(), Failure> {
    let (status, body) = args.admin.get("/api/v1/maintenance")?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}: is it another version?")));
    }
    if args.json {
        return print(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let document: MaintenanceDocument =
        serde_json::from_slice(&body).map_err(|error| not_understood(&error))?;
    if document.maintenance.is_empty() {
        return print("no maintenance\n");
    }
    let lines: Vec<_> = document.maintenance.iter().map(line).collect();
    print(&format!("{}\n", lines.join("\n")))
}

/// What stands in the status too.
pub fn line(one: &MaintenanceStatus) -> String {
    let about = &one.about;
    let head = if one.on { "MAINTENANCE" } else { "maintenance to come" };
    let whose = about.id.map_or_else(|| "by the configuration".to_owned(), |id| format!("number {id}"));
    let whose = match &one.from {
        Some(from) => format!("{whose}, ordered at {from}"),
        None => whose,
    };
    let mut more = vec![whose, format!("page {}", about.page)];
    if !about.allow.is_empty() {
        more.push(format!("lets {} through", about.allow.join(", ")));
    }
    if !about.except.is_empty() {
        more.push(format!("but {}", about.except.join(", ")));
    }
    if !about.why.is_empty() {
        more.push(about.why.clone());
    }
    format!("{head} of {}: {}; {}", about.scope(), about.time(Timestamp::now()), more.join("; "))
}

fn about(value: &serde_json::Value) -> Result<About, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| not_understood(&error))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
}
