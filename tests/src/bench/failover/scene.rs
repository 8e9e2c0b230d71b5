//! One fault under load, seen by the visitors of each proxy.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    Tally,
    faults::Fault,
    proxies::{Proxy, Setting},
};
use crate::lab::{
    Lab,
    load::{self, Load, Outcome, Record},
    server::Server,
    wait,
};

const GETS: u32 = 100;
const POSTS: u32 = 20;

/// Every load of a proxy numbers its orders within a range of its own, by which they are told apart afterwards.
const ORDERS: u64 = 1_000_000;
const OF_A_PROXY: u64 = 1_000 * ORDERS;

/// Before the fault, and after everybody is well again.
const STEADY: usize = 60;

/// How long a proxy may take to come back to a server.
const BACK: Duration = Duration::from_secs(30);

/// Whom a fault can have delayed: who was under way, or came within this time of it.
const SPAN: Duration = Duration::from_secs(1);

/// What the visitors of one proxy saw.
#[derive(Debug)]
pub struct Seen {
    pub gets: Vec<Record>,
    pub posts: Vec<Record>,
    broken: Instant,
    mended: Instant,
}

/// Plays a scene, and returns when every proxy uses the server again.
pub fn play(lab: &Lab, proxies: &[Proxy], server: &mut Server, fault: Fault) -> anyhow::Result<Vec<Seen>> {
    static LOADS: AtomicU64 = AtomicU64::new(0);
    let number = LOADS.fetch_add(1, Ordering::Relaxed);
    let mut loads = Vec::new();
    for (index, proxy) in (0..).zip(proxies) {
        let first = index * OF_A_PROXY + number * ORDERS;
        let gets = Load::start(&lab.visitor, &proxy.browser, "/slow?ms=20", GETS)?;
        loads.push((gets, Load::ordering(&lab.visitor, &proxy.browser, first, POSTS)?));
    }
    for (gets, _) in &loads {
        gets.wait_for_more(STEADY, BACK)?;
    }
    fault.begin(lab, server)?;
    let broken = Instant::now();
    fault.last(lab, server)?;
    let mended = Instant::now();
    let name = server.name();
    for ((gets, _), proxy) in loads.iter().zip(proxies) {
        let what = format!("{} uses server {name} again after: {}", proxy.name, fault.name());
        gets.wait_for(&what, mended, BACK, |record| record.served_by(name))?;
    }
    loads[0].0.wait_for_more(STEADY, BACK)?;
    loads
        .into_iter()
        .map(|(gets, posts)| {
            // Some hold out for as long as their patience is.
            gets.wait_until_past(Instant::now(), BACK)?;
            Ok(Seen { gets: gets.stop()?, posts: posts.stop()?, broken, mended })
        })
        .collect()
}

/// Adds up which orders the servers got more than once.
pub fn count_duplicates(lab: &Lab, tallies: &mut [Tally]) -> anyhow::Result<()> {
    // What was under way when the last load ended has reached its file by then.
    let path = Server::orders(lab);
    let read = || Ok(Some(std::fs::read_to_string(&path)?));
    let text = wait::until("the orders can be read", BACK, read)?;
    let mut counts = HashMap::<u64, usize>::new();
    for id in text.lines() {
        *counts.entry(id.parse()?).or_default() += 1;
    }
    for (id, count) in counts {
        if let Some(tally) = tallies.get_mut(usize::try_from(id / OF_A_PROXY)?) {
            tally.duplicated_posts += count - 1;
        }
    }
    Ok(())
}

// === impl Seen ===

impl Seen {
    /// With another server there, the page is a failure too.
    pub fn failed_gets(&self, setting: Setting) -> usize {
        match setting {
            Setting::TwoServers => self.gets.iter().filter(|record| !record.is_served()).count(),
            Setting::OneServer => load::failed(&self.gets),
        }
    }

    pub fn failed_posts(&self) -> usize {
        load::failed(&self.posts)
    }

    /// In milliseconds: of all whom the fault can have delayed, from the fault (or their begin, if that was later) to their
    /// answer or page.
    pub fn waits(&self) -> impl Iterator<Item = f64> {
        let concerned = load::concerned(&self.gets, self.broken, SPAN);
        let broken = self.broken;
        concerned.into_iter().map(move |record| {
            let from = record.begun.max(broken);
            record.ended().saturating_duration_since(from).as_secs_f64() * 1e3
        })
    }

    /// In milliseconds, from when the server was well to the first answer that came from it.
    pub fn recovery(&self) -> Option<f64> {
        let back = self.gets.iter().filter(|record| record.is_served() && record.begun >= self.mended);
        let first = back.map(Record::ended).min()?;
        Some(first.saturating_duration_since(self.mended).as_secs_f64() * 1e3)
    }

    pub fn told(&self, setting: Setting) -> String {
        let pages = self.gets.iter().filter(|record| record.outcome == Outcome::Maintenance).count();
        let longest = self.waits().fold(0.0, f64::max);
        let lost: Vec<Record> = self.gets.iter().filter(|record| record.is_failed()).cloned().collect();
        let lost = if lost.is_empty() { String::new() } else { format!("; {}", load::summary(&lost)) };
        format!(
            "{} GETs, {} failed, {pages} pages, longest wait {longest:.0} ms, back after {:.0} ms; {} POSTs, {} failed{lost}",
            self.gets.len(),
            self.failed_gets(setting),
            self.recovery().unwrap_or_default(),
            self.posts.len(),
            self.failed_posts(),
        )
    }
}
