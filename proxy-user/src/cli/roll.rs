//! `weir roll`: takes the servers of a service out, one after the other, has a command renew each, and puts it back when it is
//! well again. Stops for a person as soon as anything is not as it should be.
//!
//! The daemon only drains and undrains: what is run, is run here, with the rights of whoever rolls. [`plan`] says who is rolled
//! in which order, [`step`] takes one server through it, [`command`] runs the command, [`tell`] tells.

mod command;
mod plan;
mod step;
mod tell;

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Failure,
        admin::AdminArgs,
        drain::{Asking, LOOK},
        roll::{
            plan::{Batch, Plan, Who},
            step::{Stopped, Terms},
            tell::Teller,
        },
    },
    config,
};

#[derive(Debug, Args)]
pub struct RollArgs {
    /// The service whose servers are rolled
    service: String,
    /// Begin with this server: those before it are done
    #[arg(long, value_name = "SERVER")]
    from: Option<String>,
    /// Leave this server out; may be given several times
    #[arg(long, value_name = "SERVER")]
    skip: Vec<String>,
    /// So many servers at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// So many other servers must be getting work whenever one is taken out; 0 leaves visitors with the page
    #[arg(long, value_name = "N", default_value_t = 1)]
    at_least: u16,
    /// How long a server's last requests may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = config::duration)]
    drain_timeout: Duration,
    /// How long the command may take for each server
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = config::duration)]
    command_timeout: Duration,
    /// How long a server may take until it is well again
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = config::duration)]
    healthy_timeout: Duration,
    /// Also for a service without a health check: a server counts as well when its command ended with exit code 0
    #[arg(long)]
    without_health: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// One JSON object a line for everything that happens; the command's output goes to stderr
    #[arg(long)]
    json: bool,
    /// What renews a server, run without a shell. In each argument {server} and {address} stand for ADDRESS:PORT, {host}
    /// and {port} for its parts, {service} for the service
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &RollArgs) -> Result<(), Failure> {
    let document = crate::cli::drain::document(&args.admin)?;
    let who = Who {
        service: &args.service,
        from: args.from.as_deref(),
        skip: &args.skip,
        parallel: usize::from(args.parallel),
        without_health: args.without_health,
    };
    let plan =
        Plan::of(&document, who).map_err(|sentence| Failure::BadConfig(format!("error: {sentence}")))?;
    let begins = plan.batches.first().map_or(Ok(()), |batch| enough(args, &document, batch));
    begins.map_err(|why| Failure::Failed(format!("{why}; nothing was begun")))?;
    let tell = Arc::new(Teller::new(args.json));
    if args.dry_run {
        return tell.plan(&plan, &args.service, &args.command);
    }
    command::heed_interrupts();
    let terms = Terms {
        admin: args.admin.clone(),
        service: args.service.clone(),
        command: args.command.clone(),
        drain_timeout: args.drain_timeout,
        command_timeout: args.command_timeout,
        healthy_timeout: args.healthy_timeout,
        force: args.at_least == 0,
        output_aside: args.json,
        tell: tell.clone(),
    };

    let mut rolled = Vec::new();
    for (index, batch) in plan.batches.iter().enumerate() {
        let stopped = match begin(args, batch) {
            Ok(()) => at_once(&terms, batch, &mut rolled),
            Err(why) => Some(why),
        };
        if let Some(stopped) = stopped {
            let next = plan.batches.get(index + 1);
            return Err(halted(args, &tell, &plan, &rolled, &stopped, next));
        }
    }
    tell.event("done", &args.service, &json!({ "rolled": rolled }), || {
        format!("done: {} of service `{}`", counted(rolled.len()), args.service)
    });
    Ok(())
}

/// Waits until enough of the other servers get work, or says why the roll goes no further.
fn begin(args: &RollArgs, batch: &Batch) -> Result<(), Stopped> {
    let until = std::time::Instant::now() + args.healthy_timeout;
    let mut asking = Asking::new(&args.admin);
    let before = |why: String| Stopped { server: batch.servers[0].name.clone(), why, drained: false };
    loop {
        let document = asking.document().map_err(|failure| before(step::sentence(failure)))?;
        if command::interrupts() > 0 {
            return Err(before("it was interrupted".into()));
        }
        if let Some(document) = document {
            match enough(args, &document, batch) {
                Ok(()) => return Ok(()),
                Err(why) if std::time::Instant::now() >= until => return Err(before(why)),
                Err(_) => {}
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn enough(
    args: &RollArgs,
    document: &crate::admin::status::drains::DrainsDocument,
    batch: &Batch,
) -> Result<(), String> {
    plan::enough_without(document, &args.service, batch, usize::from(args.at_least))
}

/// Takes the servers of a batch through it at the same time. What stopped one stops none of the others of its batch.
fn at_once(terms: &Terms, batch: &Batch, rolled: &mut Vec<String>) -> Option<Stopped> {
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let steps: Vec<_> =
            batch.servers.iter().map(|server| scope.spawn(|| step::roll(terms, server))).collect();
        steps.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut first = None;
    for (server, outcome) in batch.servers.iter().zip(outcomes) {
        match outcome {
            Ok(Ok(())) => rolled.push(server.name.clone()),
            Ok(Err(stopped)) => first = first.or(Some(stopped)),
            Err(_) => {
                let why = "weir itself panicked".to_owned();
                first = first.or(Some(Stopped { server: server.name.clone(), why, drained: true }));
            }
        }
    }
    first
}

/// What a person has to know to go on.
fn halted(
    args: &RollArgs,
    tell: &Teller,
    plan: &Plan,
    rolled: &[String],
    stopped: &Stopped,
    next: Option<&Batch>,
) -> Failure {
    let left: Vec<&str> = plan.servers().filter(|name| !rolled.iter().any(|done| done == name)).collect();
    tell.event(
        "stopped",
        &args.service,
        &json!({
            "server": stopped.server, "why": stopped.why, "drained": stopped.drained, "rolled": rolled, "left": left,
        }),
        String::new,
    );
    let service = &args.service;
    let Stopped { server, why, drained } = stopped;
    let state = if *drained { "stays drained" } else { "is not drained by this roll" };
    let mut text = format!("stopped at {service}/{server}: {why}. It {state}.\n");
    if !rolled.is_empty() {
        text += &format!("  rolled:   {}\n", rolled.join(", "));
    }
    text += &format!("  not done: {}\n", left.join(", "));
    let command = args.command.join(" ");
    text += &format!("  go on with it:      weir roll {service} --from {server} -- {command}\n");
    match next {
        Some(next) => {
            let next = &next.servers[0].name;
            text += &format!("  go on without it:   weir roll {service} --from {next} -- {command}\n");
            text += "  (give the other options again as you gave them here)\n";
        }
        None => text += "  it was the last one\n",
    }
    if *drained {
        text += &format!("  give it work again: weir undrain {service}/{server}");
    }
    Failure::Failed(text)
}

fn counted(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}
