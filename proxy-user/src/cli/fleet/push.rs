//! `weir push`: checks a folder of documents, shows what they would change, and makes them the next generation.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::json;

use super::{StoreArgs, WaitArgs, announce, open, places::Place, tell};
use crate::{
    cli::{Failure, apply::changes_text, block_on, colour_on_stderr, complain, print},
    config::{
        self, Loaded,
        diff::{self, Change},
        documents::{Document, Supplies, Supply},
    },
    fleet::{
        publish::{self, Ground, Terms},
        survey,
    },
    store::{etcd::Session, layout::Text},
};

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The documents: a folder, with the `*.toml` in it and in its folders, or one file
    dir: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// This host first, and the others when `weir fleet promote` says so, or when with --wait it went well; more than once:
    /// these hosts
    #[arg(long, value_name = "HOST")]
    canary: Vec<String>,
    /// Back by itself unless `weir fleet confirm` comes within this time: 1s to 24h
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    confirm: Option<Duration>,
    /// What it is about, for `weir history`
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    /// Check, and show what would change, and no more
    #[arg(long)]
    dry_run: bool,
    /// Also over a generation that is still tried, and to canaries that aren't there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
    /// As JSON objects, one a line
    #[arg(long)]
    json: bool,
}

/// The shortest and the longest trial.
const TRIAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

pub fn push(args: &PushArgs) -> Result<(), Failure> {
    let faulty = |why: String| Failure::BadConfig(format!("error: {why}"));
    if let Some(time) = args.confirm.filter(|time| !TRIAL.contains(time)) {
        return Err(faulty(format!("a trial takes from 1s to 24h, not {time:?}")));
    }
    let place = args.store.place()?;
    let documents = read(&args.dir).map_err(faulty)?;

    // 1. Everything that can be refused without having asked anybody.
    let next = check(&place, &documents).map_err(|loaded| {
        if args.json {
            let _ = print(&format!("{}\n", json!({ "valid": false, "diagnostics": loaded.diagnostics })));
            return Failure::BadConfig(String::new());
        }
        Failure::BadConfig(loaded.render(colour_on_stderr()))
    })?;
    if !next.warnings.is_empty() && !args.json {
        complain(&next.report().render(colour_on_stderr()));
    }
    block_on(async {
        // 2. What it would change.
        let session = open(&place).await?;
        let ground = Ground::read(&session).await?;
        let changes = changes(&session, &ground, &place, &next).await?;
        if args.json {
            print(&format!("{}\n", json!({ "event": "changes", "changes": changes })))?;
        } else {
            print(&changes_text(&changes))?;
        }
        if args.dry_run {
            return Ok(());
        }
        there(&session, args).await?;

        // 3. All or nothing.
        let terms = Terms {
            canary: args.canary.clone(),
            confirm: args.confirm,
            author: tell::author(),
            message: args.message.clone(),
            force: args.force,
        };
        let texts = documents.into_iter().map(|(name, _, text)| Text { name, text }).collect();
        let pushed = publish::push(&session, &ground, texts, &terms).await?;
        announce(&session, pushed, &args.wait, args.json, "pushed").await
    })?
}

/// A canary that isn't there would keep the others waiting.
async fn there(session: &Session, args: &PushArgs) -> Result<(), Failure> {
    if args.canary.is_empty() || args.force {
        return Ok(());
    }
    let fleet = survey::read(session).await?;
    let names: Vec<_> = fleet.hosts.iter().filter(|host| host.there).map(|host| &*host.name).collect();
    match args.canary.iter().find(|name| !names.contains(&&***name)) {
        None => Ok(()),
        Some(absent) if names.is_empty() => {
            Err(Failure::Failed(format!("--canary {absent}: no host is there")))
        }
        Some(absent) => Err(Failure::Failed(format!(
            "--canary {absent}: no host of this name is there; there are {} (`--force` does it all the same)",
            names.join(", ")
        ))),
    }
}

/// What `next` changes against what is current.
async fn changes(
    session: &Session,
    ground: &Ground,
    place: &Place,
    next: &Loaded,
) -> Result<Vec<Change>, Failure> {
    let number = ground.current.as_ref().map_or(0, |current| current.generation);
    let before = publish::generation(session, number).await?;
    let documents: Vec<_> =
        before.documents.into_iter().map(|document| (document.name, None, document.text)).collect();
    match check(place, &documents) {
        Ok(before) => Ok(diff::of(&before.config, &next.config)),
        Err(_) => {
            complain("what is current isn't valid here, so what would change can't be told");
            Ok(Vec::new())
        }
    }
}

/// A document's name, where it stands, and its text.
type Read = (String, Option<PathBuf>, String);

/// All documents of a folder, by name.
fn read(path: &Path) -> Result<Vec<Read>, String> {
    let mut all = Vec::new();
    if path.is_dir() {
        gather(path, "", &mut all)?;
        if all.is_empty() {
            return Err(format!("{} has no `*.toml`", path.display()));
        }
    } else {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        all.push((name, Some(path.to_owned()), text(path)?));
    }
    Ok(all)
}

fn gather(folder: &Path, prefix: &str, all: &mut Vec<Read>) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("{} can't be read: {error}", folder.display());
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(unreadable)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            gather(&path, &format!("{prefix}{name}/"), all)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let text = text(&path)?;
            all.push((format!("{prefix}{name}"), Some(path), text));
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    match private_key(&text) {
        None => Ok(text),
        Some(line) => Err(format!(
            "{}:{line} is a private key, and documents stand in the store for everybody to read who reads it: \
             `weir fleet certificate add` brings certificates there with their keys sealed",
            path.display()
        )),
    }
}

/// The line on which a private key begins, in PEM.
fn private_key(text: &str) -> Option<usize> {
    let begins = |line: &str| line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
    text.lines().position(begins).map(|line| line + 1)
}

/// As the hosts will read them: together with the configuration that names the store, where there is one here.
fn check(place: &Place, documents: &[Read]) -> Result<Loaded, config::Report> {
    let provider = place.beside.as_ref().map_or("push", |(_, name)| name);
    let wanted = documents
        .iter()
        .map(|(name, path, text)| Document {
            // As the operator knows it, with its line.
            origin: path.clone().unwrap_or_else(|| PathBuf::from(format!("{provider}:{name}"))),
            ..Document::of(provider, name, text.as_str())
        })
        .collect();
    let supply = Supply { wanted, good: Vec::new(), whole: true };
    let supplies = Supplies::from([(provider.into(), supply)]);
    let loaded = match &place.beside {
        Some((config, _)) => config::load_with(config, &supplies)?,
        None => config::load_documents(provider, &supplies)?,
    };
    if loaded.taken.faults.is_empty() { Ok(loaded) } else { Err(loaded.into_report()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_in_a_document_is_seen_whatever_its_kind() {
        for kind in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
            let text = format!("a = 1\nkey = \"\"\"-----BEGIN {kind}PRIVATE KEY-----\nMII\n\"\"\"\n");
            assert_eq!(private_key(&text), Some(2), "{kind}");
        }
        assert_eq!(private_key("-----BEGIN CERTIFICATE-----\n# no PRIVATE KEY-----\n"), None);
    }
}
