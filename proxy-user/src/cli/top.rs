//! `weir top`: what the gate lets pass and drops, per second, and how the servers are.
//!
//! The kernel's part comes from the pins alone: it is there also when the daemon is dead. What the daemon knows besides
//! (requests, servers, lists' ages) it is asked for each time.
//!
//! ```text
//!   gather ─► interval (rates), sources (where from) ─► text, or JSON
//!                                                    ╰► dashboard (history, keys) ─► screen
//! ```

mod dashboard;
#[cfg(test)]
mod example;
mod figures;
mod gather;
mod interval;
mod screen;
mod terminal;
mod text;

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;

use self::{gather::Gatherer, interval::Interval};
use crate::{
    cli::{Failure, admin::AdminArgs, kernel::Place, print},
    config,
};

#[derive(Debug, Args)]
pub struct TopArgs {
    /// One interval as plain text, and the end. So it is also where the output is no terminal
    #[arg(long)]
    once: bool,
    /// How long an interval is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    admin: AdminArgs,
    /// As JSON, an object on each line for each interval; with `--once`, one
    #[arg(long)]
    json: bool,
}

pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let for_people = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if for_people && !args.once && !args.json {
        return terminal::run(args.place.bpffs.clone(), args.admin.clone(), args.every);
    }
    let mut gatherer = Gatherer::begin(args.place.bpffs.clone(), args.admin.clone());
    let only_one = args.once || !args.json;
    while let Some(interval) = gatherer.interval(args.every, || true) {
        if only_one {
            is_anything(&interval)?;
        }
        print(&if args.json { json(&interval)? } else { text::of(&interval) })?;
        if only_one {
            break;
        }
    }
    Ok(())
}

/// Where there is neither gate nor daemon, there is nothing to show.
fn is_anything(interval: &Interval) -> Result<(), Failure> {
    match (&interval.gate, &interval.daemon_trouble) {
        (interval::Gate::On { .. }, _) | (_, None) => Ok(()),
        (gate, Some(why)) => Err(Failure::Failed(format!("{}; {why}", text::gate(gate)))),
    }
}

fn json(interval: &Interval) -> Result<String, Failure> {
    let json = serde_json::to_string(interval).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(format!("{json}\n"))
}

fn every(text: &str) -> Result<Duration, String> {
    let every = config::duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&every) {
        Ok(every)
    } else {
        Err("an interval is from 100ms to 1m".to_owned())
    }
}
