//! How long nobody is served when one of two hosts dies: its weir alone, and the whole host; and when its weir hangs, which takes longer to be
//! believed. keepalived runs by the file in `packaging/keepalived`, with nothing changed but names.
//!
//! What counts is a visitor's time: from the moment before the loss until the end of the first request that began after it and was
//! answered. Requests begin every 10 ms; each loss hits whichever host has the address.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::{Figures, Options, say};
use crate::{
    bench::rounded,
    lab::{
        client::Browser,
        load::{self, Load},
        pair::{self, Host, Pair},
        server::{Server, Which},
        wait,
    },
    needs::Need,
};

const PER_SECOND: u32 = 100;
/// Requests before a loss.
const STEADY: usize = 50;
const PATIENCE: Duration = Duration::from_secs(20);
/// A visitor gives up on an answer after so long; who waits on a connection to a host that is gone only notices so.
const GIVES_UP: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// SIGKILL to weir; keepalived stays.
    Process,
    /// No packet leaves the host any more.
    Host,
    /// SIGSTOP to weir: it has its sockets, and answers nobody.
    Hang,
}

/// What visitors saw of one.
struct Seen {
    outage: Duration,
    failed: usize,
}

pub fn measure(options: &Options) -> anyhow::Result<Figures> {
    for need in [Need::Root, Need::Ebpf, Need::Weir, Need::Program("keepalived")] {
        need.met().map_err(anyhow::Error::msg)?;
    }
    let mut pair = Pair::build()?;
    let _servers = [Server::start(&pair.lab, Which::One)?, Server::start(&pair.lab, Which::Two)?];
    let site = pair::site(&pair.lab);
    pair.start(|host| host.settings() + &site)?;
    pair.hosts.iter_mut().for_each(Host::hush);

    let mut figures = Figures::new();
    let mut longest = Duration::ZERO;
    let mut failed = 0;
    for loss in [Loss::Process, Loss::Host, Loss::Hang] {
        let mut worst = Duration::ZERO;
        for round in 1..=options.rounds {
            let seen = suffer(&mut pair, loss)
                .with_context(|| format!("round {round}, {loss}; keepalived says:\n{}", pair.told()))?;
            say(
                options,
                &format!(
                    "  round {round}, {loss}: nobody served for {} ms, {} requests failed",
                    seen.outage.as_millis(),
                    seen.failed
                ),
            );
            worst = worst.max(seen.outage);
            if loss != Loss::Hang {
                failed += seen.failed;
            }
        }
        figures.insert(format!("host_{}_ms", loss.key()), milliseconds(worst));
        // A hang isn't a loss: others may only believe in it after they have waited.
        if loss != Loss::Hang {
            longest = longest.max(worst);
        }
    }
    figures.insert("host_loss_outage_ms".to_owned(), milliseconds(longest));
    figures.insert("host_loss_failed_requests".to_owned(), failed.into());
    Ok(figures)
}

/// Loses the host that has the address, and gets it back.
fn suffer(pair: &mut Pair, loss: Loss) -> anyhow::Result<Seen> {
    wait::until_true("both hosts are well", PATIENCE, || Ok(pair.is_whole()))?;
    let holder = wait::until("one host has the address", PATIENCE, || pair.holder())?;
    let browser = Browser::new(&pair.lab, &pair.lab.visitor, pair::at(443), &["http/1.1"])?;
    let browser = browser.with_patience(GIVES_UP);
    let load = Load::start(&pair.lab.visitor, &browser, "/", PER_SECOND)?;
    let begun = Instant::now();
    load.wait_for("a request is served", begun, PATIENCE, load::Record::is_served)?;
    load.wait_for_more(STEADY, PATIENCE)?;

    let before = Instant::now();
    match loss {
        Loss::Process => pair.hosts[holder].kill_weir()?,
        Loss::Host => pair.cut(holder)?,
        Loss::Hang => pair.hosts[holder].weir()?.process().signal(Signal::SIGSTOP)?,
    }
    // It happened in between; who began later can't have been served by the one that is lost.
    let lost = Instant::now();
    load.wait_for("somebody is served again", lost, PATIENCE, load::Record::is_served)?;
    // Who began while nobody was there has had an end, whichever it was.
    load.wait_until_past(Instant::now(), PATIENCE)?;
    let records = load.stop_within(PATIENCE)?;
    let served = records.iter().filter(|record| record.begun >= lost && record.is_served());
    let first = served.map(load::Record::ended).min().context("nobody was served")?;
    let after: Vec<_> = records.iter().filter(|record| record.ended() >= before).cloned().collect();

    match loss {
        Loss::Process => pair.hosts[holder].start_weir()?,
        Loss::Host => pair.mend(holder)?,
        Loss::Hang => pair.hosts[holder].weir()?.process().signal(Signal::SIGCONT)?,
    }
    wait::until("one host has the address", PATIENCE, || pair.holder())?;
    Ok(Seen { outage: first.duration_since(before), failed: load::failed(&after) })
}

fn milliseconds(time: Duration) -> serde_json::Value {
    rounded(time.as_secs_f64() * 1e3)
}

impl Loss {
    const fn key(self) -> &'static str {
        match self {
            Self::Process => "loss_process",
            Self::Host => "loss_whole_host",
            Self::Hang => "hang",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "weir killed",
            Self::Host => "host cut off",
            Self::Hang => "weir hangs",
        })
    }
}
