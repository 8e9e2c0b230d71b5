//! Upgrades under load, one after the other: what is lost of requests over HTTP/1.1 and HTTP/2, of a WebSocket, of a connection that is
//! relayed and of one that the kernel carries. The binary is the same each time: what an upgrade does doesn't depend on that.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Figures, Options, say};
use crate::lab::{
    load,
    stand::Stand,
    successors::Successors,
    travellers::{self, Lasting, Travellers},
};

/// As the promise has it, whatever the rounds of other figures.
const UPGRADES: usize = 20;

/// Requests a second, over each version of HTTP.
const PER_SECOND: u32 = 100;

/// Between two upgrades, of each load.
const REQUESTS_BETWEEN: usize = 100;

pub fn measure(options: &Options) -> anyhow::Result<Figures> {
    let stand = Stand::up_with(|_, toml| toml + &travellers::configuration())?;
    let mut successors = Successors::of(&stand.weir);
    let mut travellers = Travellers::set_off(&stand, PER_SECOND)?;
    let (mut said, mut lost, mut times) = (0_u64, 0_u64, Vec::new());
    for upgrade in 1..=UPGRADES {
        let answer = successors.upgrade(&stand.lab)?;
        let took = answer["took_ms"].as_u64().context("it isn't told how long it took")?;
        times.push(took);
        travellers.wait_for_more(REQUESTS_BETWEEN)?;
        // Connections from before the first upgrade, and some that begin behind this one.
        if let Err(why) = travellers.all_are_heard() {
            lost += 1;
            say(options, &format!("upgrade {upgrade}: {why:#}"));
        }
        for mut fresh in Lasting::all(&stand.lab)? {
            said += 1;
            if let Err(why) = fresh.is_heard(said) {
                lost += 1;
                say(options, &format!("upgrade {upgrade}: {why:#}"));
            }
        }
    }
    travellers.leave();
    let records = travellers.arrive()?;
    let failed = records.iter().filter(|record| !record.is_served()).count() as u64;
    say(
        options,
        &format!(
            "{UPGRADES} upgrades, each within {} ms; {} requests ({}), {} on connections that last: {lost} of them lost",
            times.iter().max().copied().unwrap_or_default(),
            records.len(),
            load::summary(&records),
            said + 3 * UPGRADES as u64,
        ),
    );
    ensure!(records.len() > UPGRADES * REQUESTS_BETWEEN, "there was no load");
    let mut figures = Figures::new();
    figures.insert("upgrade_failed_requests".to_owned(), (failed + lost).into());
    figures.insert("upgrade_requests".to_owned(), records.len().into());
    figures.insert("upgrade_longest_ms".to_owned(), times.iter().max().copied().unwrap_or_default().into());
    let longest = load::longest(&records).max(Duration::from_millis(1));
    let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    figures.insert("upgrade_longest_request_ms".to_owned(), longest.into());
    Ok(figures)
}
