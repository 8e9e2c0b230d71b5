//! `weir fleet status`

use clap::Args;

use super::{StoreArgs, open};
use crate::{
    cli::{
        Failure, block_on, print,
        table::{self, Cell, Table, Tone},
    },
    fleet::survey::{self, FleetDocument, HostStatus},
};

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let place = args.store.place()?;
    let document = block_on(async {
        let session = open(&place).await?;
        Ok::<_, Failure>(survey::read(&session).await?)
    })??;
    if args.json {
        let text = serde_json::to_string(&document).unwrap_or_default();
        return print(&format!("{text}\n"));
    }
    print(&text(&document))
}

fn text(document: &FleetDocument) -> String {
    let mut text = match document.generation {
        0 if document.since.is_empty() => format!("nothing was pushed to {} yet\n", document.store),
        generation => {
            format!("generation {generation}, since {}, by {}\n", document.since, document.author)
        }
    };
    if let Some(left) = document.confirm_within_seconds {
        text.push_str(&format!("on trial for {left:.0} s more: `weir fleet confirm` keeps it\n"));
    }
    if !document.canary.is_empty() {
        let hosts = document.canary.join(", ");
        text.push_str(&format!("only for {hosts}; the others stay at {}\n", document.previous));
    }
    if let Some(halted) = &document.halted {
        text.push_str(&format!("{} ({})\n", survey::taken_back(halted), survey::shown(halted.at)));
    }
    if document.hosts.is_empty() {
        text.push_str("no host was ever there\n");
        return text;
    }
    let mut table =
        Table::new(["host", "runs", "since", "health", "servers", "requests", "failed", "drops", "version"]);
    for host in &document.hosts {
        table.add([
            host.name.clone().into(),
            runs(host),
            host.since.clone().into(),
            health(host),
            format!("{}/{}", host.servers - host.servers_down.min(host.servers), host.servers).into(),
            host.requests.to_string().into(),
            host.failed.to_string().into(),
            host.drops.to_string().into(),
            host.version.clone().into(),
        ]);
    }
    text.push_str(&table.text(table::width()));
    for (name, rejected) in
        document.hosts.iter().filter_map(|host| Some((&host.name, host.rejected.as_ref()?)))
    {
        text.push_str(&format!(
            "{name} could not run generation {}: {}\n",
            rejected.generation, rejected.why
        ));
    }
    text
}

fn runs(host: &HostStatus) -> Cell {
    match host.generation {
        Some(generation) if generation == host.wanted => Cell::toned(generation.to_string(), Tone::Good),
        Some(generation) => Cell::toned(format!("{generation}, should {}", host.wanted), Tone::Odd),
        None => Cell::toned(format!("nothing, should {}", host.wanted), Tone::Odd),
    }
}

fn health(host: &HostStatus) -> Cell {
    match (host.there, host.draining, host.ready) {
        (false, ..) => Cell::toned(format!("gone, last heard {}", host.at), Tone::Bad),
        (_, true, _) => Cell::toned("draining", Tone::Odd),
        (_, _, true) => Cell::toned("ready", Tone::Good),
        _ => Cell::toned("not ready", Tone::Bad),
    }
}
