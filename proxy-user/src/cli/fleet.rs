//! `weir push`, `weir history`, `weir rollback` and `weir fleet …`: what operators do with a fleet. They speak to the store, and to
//! no daemon: they work from any machine that reaches it.

mod certificate;
mod key;
mod places;
mod push;
mod status;
mod tell;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{
        Failure, block_on, print,
        table::{self, Table},
    },
    config,
    fleet::{
        publish::{self, Ground, PublishFault, Terms},
        survey::shown,
        wait::{self, Patience},
    },
    store::{
        etcd::{Session, StoreFault},
        layout::{Current, Generation},
    },
};
pub use places::StoreArgs;
pub use push::{PushArgs, push};

#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Show every host: what it runs, since when, and how it is
    Status(status::StatusArgs),
    /// Keep the generation that is on trial
    Confirm(DecideArgs),
    /// Give all hosts the generation that some of them have tried
    Promote(DecideArgs),
    /// Make a key that seals secrets in the store, for `key_file` of `[fleet]` on every host
    Key(key::KeyArgs),
    /// The certificates in the store, which entrypoints with `certificates = "store"` show
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// Seal everything in the store with the first key of the key file: then the others may go
    Reseal(certificate::ResealArgs),
}

#[derive(Debug, Args)]
pub struct DecideArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// So many, the latest first
    #[arg(long, value_name = "NUMBER", default_value_t = 20, conflicts_with = "all")]
    last: usize,
    /// All of them
    #[arg(long)]
    all: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The number of the generation, as `weir history` shows it
    generation: u64,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Whether and how long the hosts are waited for.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Wait until every host that is there runs it, and fail when it is taken back
    #[arg(long)]
    wait: bool,
    /// How long the hosts may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = config::duration, requires = "wait")]
    patience: Duration,
    /// How long the hosts that try it must have run it well before all others get it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::duration, requires = "wait")]
    soak: Duration,
}

pub fn run(command: &FleetCommand) -> Result<(), Failure> {
    match command {
        FleetCommand::Status(args) => status::run(args),
        FleetCommand::Confirm(args) => {
            decide(args, "confirmed", async |session, ground| publish::confirm(session, ground).await)
        }
        FleetCommand::Promote(args) => decide(args, "given to all hosts", async |session, ground| {
            publish::promote(session, ground).await
        }),
        FleetCommand::Key(args) => key::run(args),
        FleetCommand::Certificate(command) => certificate::run(command),
        FleetCommand::Reseal(args) => certificate::reseal(args),
    }
}

fn decide(
    args: &DecideArgs,
    done: &str,
    decision: impl AsyncFnOnce(&Session, &Ground) -> Result<Current, PublishFault>,
) -> Result<(), Failure> {
    let place = args.store.place()?;
    block_on(async {
        let session = open(&place).await?;
        let ground = Ground::read(&session).await?;
        let current = decision(&session, &ground).await?;
        announce(&session, current, &args.wait, args.json, done).await
    })?
}

pub fn rollback(args: &RollbackArgs) -> Result<(), Failure> {
    let place = args.store.place()?;
    block_on(async {
        let session = open(&place).await?;
        let ground = Ground::read(&session).await?;
        let terms = Terms { author: tell::author(), ..Terms::default() };
        let current = publish::roll_back(&session, &ground, args.generation, &terms).await?;
        announce(&session, current, &args.wait, args.json, "current again, for all hosts").await
    })?
}

pub fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let place = args.store.place()?;
    let most = if args.all { usize::MAX } else { args.last };
    let (current, generations) = block_on(async {
        let session = open(&place).await?;
        let ground = Ground::read(&session).await?;
        let generations = publish::history(&session, most).await?;
        Ok::<_, Failure>((ground.current, generations))
    })??;
    if args.json {
        let all: Vec<_> = generations.iter().map(|one| as_json(one, current.as_ref())).collect();
        return print(&format!("{}\n", json!({ "generations": all })));
    }
    if generations.is_empty() {
        return print("nothing was pushed to this store yet\n");
    }
    let mut table = Table::new(["generation", "made", "by", "from", "documents", "", "message"]);
    for one in &generations {
        let state = state(one.generation, current.as_ref());
        table.add([
            one.generation.to_string().into(),
            shown(one.at).into(),
            one.author.clone().into(),
            if one.base == 0 { String::new().into() } else { one.base.to_string().into() },
            one.documents.len().to_string().into(),
            state.into(),
            one.message.clone().into(),
        ]);
    }
    print(&table.text(table::width()))
}

fn as_json(generation: &Generation, current: Option<&Current>) -> serde_json::Value {
    json!({
        "generation": generation.generation,
        "digest": generation.digest,
        "base": generation.base,
        "author": generation.author,
        "at": shown(generation.at),
        "message": generation.message,
        "documents": generation.documents.iter().map(|document| &document.name).collect::<Vec<_>>(),
        "state": state(generation.generation, current),
    })
}

/// What a generation is now, in a word or two.
fn state(generation: u64, current: Option<&Current>) -> String {
    let Some(current) = current else { return String::new() };
    let halted = current.halted.as_ref().filter(|halted| halted.generation == generation);
    if generation == current.generation {
        match (&*current.canary, current.confirm_by) {
            ([], None) => "current".to_owned(),
            ([], Some(_)) => "on trial".to_owned(),
            (some, _) => format!("at {} only", some.join(", ")),
        }
    } else if let Some(halted) = halted {
        format!("taken back by {}", halted.by)
    } else if generation == current.previous {
        "previous".to_owned()
    } else {
        String::new()
    }
}

/// Says what was decided, and waits for it where that is wished.
async fn announce(
    session: &Session,
    decided: Current,
    wait: &WaitArgs,
    json: bool,
    done: &str,
) -> Result<(), Failure> {
    let teller = tell::Teller { json };
    teller.decided(&decided, done)?;
    if wait.wait {
        let patience = Patience { all: wait.patience, soak: wait.soak };
        let ended = wait::until_taken_over(session, &decided, patience, |told| teller.told(&told)).await;
        teller.ended(&ended.map_err(|fault| Failure::Failed(fault.to_string()))?)?;
    }
    Ok(())
}

async fn open(place: &places::Place) -> Result<Session, Failure> {
    // Another endpoint each time: the first of the list isn't everybody's.
    Ok(Session::open(&place.address, fastrand::usize(..1024)).await?)
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Failed(format!("the store can't be used: {fault}"))
    }
}

impl From<PublishFault> for Failure {
    fn from(fault: PublishFault) -> Self {
        match fault {
            PublishFault::Store(fault) => fault.into(),
            refused @ PublishFault::Refused(_) => Self::Failed(refused.to_string()),
        }
    }
}
