//! Edge hosts in pairs and more: what visitors notice when one is lost or upgraded, how soon a change is everywhere, and what
//! becomes of requests while the store is away.
//!
//! Each figure is measured by a file of its own below, in a lab of its own; here is only which there are, and what each may be.

mod host_loss;
mod upgrade;
mod propagation;
mod store_away;

use anyhow::ensure;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// By key, as the last line has them.
pub type Figures = Map<String, Value>;

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    /// How often each thing is done that is measured.
    pub rounds: usize,
    /// Only these; none: all.
    pub only: Vec<Part>,
}

/// What can be measured by itself, in the order in which it is. A new one is a variant, an arm of [`Part::measure`] and the
/// line of its figure in [`AT_MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// An edge host of two dies, and the other takes the address over
    HostLoss,
    /// A daemon gives way to another one, again and again
    Upgrade,
    /// `weir push`, until three hosts serve it
    Propagation,
    /// The store is away for a minute
    StoreAway,
}

/// The figures that have a bound.
const AT_MOST: [(&str, f64); 4] = [
    ("upgrade_failed_requests", 0.0),
    ("host_loss_outage_ms", 1500.0),
    ("config_propagation_ms_p99", 500.0),
    ("store_away_failed_requests", 0.0),
];

/// Measures, and says what came of it; `json`: once more, for programs, as the last line.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "nothing to measure: give at least one round");
    let parts = if options.only.is_empty() { Part::value_variants() } else { &options.only };
    let mut figures = Figures::new();
    for part in parts {
        figures.extend(part.measure(options)?);
    }
    for (key, value) in &figures {
        let bound = AT_MOST.iter().find(|(bounded, _)| bounded == key);
        let bound = bound.map_or_else(String::new, |(_, most)| format!(" (at most {most})"));
        say(options, &format!("{key:<40} {value}{bound}"));
    }
    if options.json {
        figures.insert("rounds".to_owned(), options.rounds.into());
        anstream::println!("{}", json!({ "bench": "fleet", "figures": figures }));
    }
    Ok(())
}

// === impl Part ===

impl Part {
    fn measure(self, options: &Options) -> anyhow::Result<Figures> {
        match self {
            Self::HostLoss => host_loss::measure(options),
            Self::Upgrade => upgrade::measure(options),
            Self::Propagation => propagation::measure(options),
            Self::StoreAway => store_away::measure(options),
        }
    }
}

/// For people: not on stdout when a program reads that.
fn say(options: &Options, line: &str) {
    if options.json {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}
