//! `weir allowlist show` and `weir allowlist refresh`

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    admin::status::allowlists::{AllowlistStatus, AllowlistsDocument, FetchedStatus},
    cli::{Failure, admin::AdminArgs, print},
    control::{guard::Session, lists::Refreshed},
};

#[derive(Debug, Subcommand)]
pub enum AllowlistCommand {
    /// Who keeps them current, how old they are, the last error, who uses them
    Show(ShowArgs),
    /// Fetch now, and say what came of it. Exit code 1 if a list could not be refreshed; its last good one stays
    Refresh(RefreshArgs),
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Only this list
    name: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print who is on the list, one prefix a line, and nothing else
    #[arg(long)]
    prefixes: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// Only this list
    name: Option<String>,
    /// Take a list also when it has shrunken below its `shrink_limit`; an empty one is refused all the same
    #[arg(long, requires = "name")]
    accept_shrunken: bool,
    /// Take a list also when it locks somebody out: an SSH session, another program's clients
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(command: &AllowlistCommand) -> Result<(), Failure> {
    match command {
        AllowlistCommand::Show(args) => show(args),
        AllowlistCommand::Refresh(args) => refresh(args),
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let path = if args.prefixes { "/api/v1/allowlists?prefixes=true" } else { "/api/v1/allowlists" };
    let (status, body) = args.admin.get(path)?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}: is it another version?")));
    }
    let mut document: AllowlistsDocument = serde_json::from_slice(&body).map_err(|error| {
        Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
    })?;
    if let Some(name) = &args.name {
        let all: Vec<_> = document.allowlists.iter().map(|list| format!("`{}`", list.name)).collect();
        document.allowlists.retain(|list| list.name == *name);
        if document.allowlists.is_empty() {
            let sentence = format!("there is no allowlist `{name}`; there are {}", all.join(", "));
            return Err(Failure::Failed(sentence));
        }
    }
    if args.json {
        let text = serde_json::to_string(&document).map_err(|error| Failure::Failed(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    let shown = if args.prefixes { prefixes } else { text };
    print(&shown(&document.allowlists))
}

fn prefixes(lists: &[AllowlistStatus]) -> String {
    let all = lists.iter().flat_map(|list| list.prefixes.iter().flatten());
    all.map(|prefix| format!("{prefix}\n")).collect()
}

fn text(lists: &[AllowlistStatus]) -> String {
    let mut text = String::new();
    for list in lists {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}", list.name);
        let mut row = |what: &str, value: &str| {
            let _ = writeln!(text, "  {what:<13} {value}");
        };
        row("prefixes", &format!("{} IPv4, {} IPv6", list.prefixes_v4, list.prefixes_v6));
        row(
            "used by",
            &if list.entrypoints.is_empty() {
                "no entrypoint".to_owned()
            } else {
                list.entrypoints.join(", ")
            },
        );
        match &list.fetched {
            None => row("source", "the configuration"),
            Some(fetched) => fetched_rows(fetched, list.entrypoints.is_empty(), row),
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn fetched_rows(fetched: &FetchedStatus, unused: bool, mut row: impl FnMut(&str, &str)) {
    row("source", &fetched.urls.join(", "));
    let age = fetched.age_seconds.map(|seconds| format!(", confirmed {} ago", ago(seconds)));
    let in_force = match &*fetched.in_force {
        "kept" => "the last good list from the disk",
        "fetched" => "the fetched list",
        "built-in" => "the built-in list: no fetch has succeeded yet",
        _ => "only what the configuration says: no fetch has succeeded yet",
    };
    row("in force", &format!("{in_force}{}", age.unwrap_or_default()));
    let etags: Vec<&str> = fetched.etags.iter().flatten().map(String::as_str).collect();
    if !etags.is_empty() {
        row("etag", &etags.join(", "));
    }
    row("last fetch", fetched.last_fetch.as_deref().unwrap_or("none since the daemon began"));
    if let Some(error) = &fetched.last_error {
        row("LAST ERROR", error);
    }
    row(
        "next refresh",
        match &fetched.next_refresh {
            Some(next) => next,
            None if unused => "none: no entrypoint uses the list",
            None if fetched.refresh_seconds.is_none() => "off: `weir allowlist refresh` fetches it",
            None => "under way",
        },
    );
}

/// The two greatest units.
pub fn ago(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

fn refresh(args: &RefreshArgs) -> Result<(), Failure> {
    let ssh = Session::of_this_process().map(Session::to_ssh);
    let order = json!({
        "list": args.name, "accept_shrunken": args.accept_shrunken, "force": args.force, "ssh": ssh,
    });
    let answer = args.admin.order("/api/v1/allowlists/refresh", &order)?;
    let refreshed: Refreshed = serde_json::from_value(answer.clone()).map_err(|error| {
        Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
    })?;
    if args.json {
        print(&format!("{answer}\n"))?;
    } else if refreshed.lists.is_empty() {
        print("no allowlist is fetched: none that an entrypoint uses has a `url`\n")?;
    } else {
        for list in refreshed.lists.iter().filter(|list| list.ok) {
            print(&format!("{}: {}\n", list.name, list.outcome))?;
        }
    }
    let failed: Vec<_> = refreshed.lists.iter().filter(|list| !list.ok).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let sentences: Vec<_> = failed
        .iter()
        .map(|list| {
            format!("{} could not be refreshed, the last good list stays: {}", list.name, list.outcome)
        })
        .collect();
    Err(Failure::Failed(sentences.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_two_greatest_units() {
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_000, "1d 1h")] {
            assert_eq!(ago(seconds), shown);
        }
    }
}
