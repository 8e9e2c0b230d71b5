//! `weir fleet certificate` and `weir fleet reseal`: what stands sealed in the store.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    StoreArgs, open,
    places::{KeyFileArgs, Place},
};
use crate::{
    cli::{Failure, block_on, print, table},
    fleet::{
        certificates::{self, Held, Shelves},
        publish::PublishFault,
        seal::FleetKeys,
    },
    store::{etcd::Session, layout::CERTIFICATES},
    tls::{certificates as files, report},
};

#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Put certificates there with their keys, or new ones in the place of those that are there
    Add(AddArgs),
    /// Show them
    List(ListArgs),
    /// Take one away
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// PEM files with chain and key, or folders of them, as `tls = { certificates = … }` reads them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The key of the one file, where it is neither in it nor beside it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What the one certificate is called in the store; `default`: for clients that name no host [default: as its file or folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key_file: KeyFileArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key_file: KeyFileArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// What it is called in the store
    name: String,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct ResealArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key_file: KeyFileArgs,
}

pub fn run(command: &CertificateCommand) -> Result<(), Failure> {
    match command {
        CertificateCommand::Add(args) => add(args),
        CertificateCommand::List(args) => list(args),
        CertificateCommand::Remove(args) => remove(args),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    // 1. Everything that can be refused without having asked anybody.
    let texts = read(args)?;
    let place = args.store.place()?;
    let keys = args.key_file.keys(&place)?;
    // 2. One after the other: each is whole by itself.
    within(&place, &keys, async |shelves| {
        for (name, text) in &texts {
            shelves.put(name, text).await?;
        }
        Ok(())
    })?;
    let names: Vec<_> = texts.iter().map(|(name, _)| name.as_str()).collect();
    print(&format!("in the store: {}\n", names.join(", ")))
}

/// Names and texts, each name once.
fn read(args: &AddArgs) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let wrong = |why: String| Failure::BadConfig(format!("error: {why}"));
    let (mut read, mut faults) = (Vec::new(), Vec::new());
    for path in &args.paths {
        match files::texts(path, args.key.as_deref()) {
            Ok(texts) => read.extend(texts),
            Err(these) => faults.extend(these.into_iter().map(|fault| {
                let hint = fault.hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                format!("error: {}{hint}", fault.sentence)
            })),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::BadConfig(faults.join("\n")));
    }
    if (args.name.is_some() || args.key.is_some()) && read.len() != 1 {
        return Err(wrong(format!("--name and --key are for one certificate, and these are {}", read.len())));
    }
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    for (certificate, text) in read {
        let named = match &args.name {
            Some(name) => certificates::checked(name),
            None => certificates::name_of(&certificate.file),
        };
        let name = named.map_err(wrong)?;
        if let Some(sentence) = report::validity(&certificate, std::time::Duration::ZERO, SystemTime::now()) {
            return Err(wrong(sentence));
        }
        if texts.iter().any(|(known, _)| *known == name) {
            return Err(wrong(format!(
                "two certificates would be called `{name}`: add them one by one, with --name"
            )));
        }
        texts.push((name, text));
    }
    Ok(texts)
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let place = args.store.place()?;
    let keys = args.key_file.keys(&place)?;
    let all = within(&place, &keys, async |shelves| shelves.list().await)?;
    if args.json {
        let all: Vec<_> = all.iter().map(as_json).collect();
        return print(&format!("{}\n", json!({ "certificates": all })));
    }
    if all.is_empty() {
        return print("there are no certificates in this store\n");
    }
    let mut table = table::Table::new(["name", "for", "valid until", "sealed with", ""]);
    for one in &all {
        let (names, until, fault) = match &one.certificate {
            Ok(certificate) => (
                certificate.names.join(", "),
                certificate.validity.ends(),
                report::validity(certificate, report::WARNING, SystemTime::now()).unwrap_or_default(),
            ),
            Err(why) => (String::new(), String::new(), why.clone()),
        };
        let key = one.sealed_with.clone().unwrap_or_default();
        let key = if one.is_current { key } else { format!("{key} (`weir fleet reseal`)") };
        table.add([one.name.clone().into(), names.into(), until.into(), key.into(), fault.into()]);
    }
    print(&table.text(table::width()))
}

fn as_json(one: &Held) -> serde_json::Value {
    let certificate = one.certificate.as_ref();
    json!({
        "name": one.name,
        "names": certificate.map(|certificate| certificate.names.clone()).unwrap_or_default(),
        "not_after": certificate.ok().map(|certificate| certificate.validity.not_after),
        "sealed_with": one.sealed_with,
        "current_key": one.is_current,
        "error": one.certificate.as_ref().err(),
    })
}

fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let name =
        certificates::checked(&args.name).map_err(|why| Failure::BadConfig(format!("error: {why}")))?;
    let place = args.store.place()?;
    let there = block_on(async {
        let session: Session = open(&place).await?;
        Ok::<_, Failure>(session.remove(&format!("{CERTIFICATES}{name}")).await?)
    })??;
    if there {
        return print(&format!("{name} is gone from the store, and isn't shown any more\n"));
    }
    Err(Failure::Failed(format!(
        "there is no certificate `{name}` in the store: `weir fleet certificate list` shows them"
    )))
}

pub fn reseal(args: &ResealArgs) -> Result<(), Failure> {
    let place = args.store.place()?;
    let keys = args.key_file.keys(&place)?;
    let (sealed, unopened) = within(&place, &keys, async |shelves| shelves.reseal().await)?;
    if unopened.is_empty() {
        return print(&format!(
            "{sealed} sealed anew; nothing in the store needs another key than the first\n"
        ));
    }
    Err(Failure::Failed(format!(
        "{sealed} sealed anew, and these could not be opened:\n{}",
        unopened.join("\n")
    )))
}

fn within<T>(
    place: &Place,
    keys: &FleetKeys,
    work: impl AsyncFnOnce(Shelves<'_>) -> Result<T, PublishFault>,
) -> Result<T, Failure> {
    block_on(async {
        let session = open(place).await?;
        Ok::<_, Failure>(work(Shelves { session: &session, keys, address: &place.address }).await?)
    })?
}
