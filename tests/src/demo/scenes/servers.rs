//! Servers die, hang and return, under a steady load of visitors.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{
    demo::{
        PATIENCE,
        figures::{Figures, words},
        stage::Stage,
        world::{RATE, World},
    },
    lab::load::{Record, concerned, failed, longest, summary},
};

/// What may be held against the load: between these moments all servers were down, and the maintenance page is
/// the right answer.
#[derive(Debug, Default)]
pub struct Ledger {
    all_down: Option<Instant>,
    back: Option<Instant>,
}

impl Ledger {
    /// Neither served, nor given the page while it was due.
    fn is_failed(&self, record: &Record) -> bool {
        let due = match (self.all_down, self.back) {
            (Some(down), Some(back)) => record.ended() >= down && record.begun <= back,
            _ => false,
        };
        !(record.is_served() || due && !record.is_failed())
    }
}

pub fn one_is_killed(stage: &mut Stage, world: &mut World, figures: &mut Figures) -> anyhow::Result<()> {
    stage.scene("A server is killed, and nobody notices");
    stage.act(&format!("{RATE} requests a second from the visitor, answered by both servers in turn"));
    stage.act("kill -9 on server one, in the middle of it");
    let killed = Instant::now();
    world.one.kill()?;
    let after = stage.meanwhile("looking at the traffic", || quiet_again(world, killed))?;

    stage.plain("");
    stage.strip(&world.load()?.records(), killed, "killed");
    stage.plain("");
    let wait = longest(&concerned(&after, killed, Duration::from_millis(300)));
    figures.refused_failover = Some(wait);
    stage.fact(after.iter().all(Record::is_served), &format!("since then: {}", summary(&after)));
    stage.fact(wait < Duration::from_millis(250), &format!("nobody waited longer than {}", words(wait)));
    Ok(())
}

pub fn both_are_killed(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
    ledger: &mut Ledger,
) -> anyhow::Result<()> {
    stage.scene("The last server is killed: the maintenance page");
    stage.act("kill -9 on server two");
    let killed = Instant::now();
    ledger.all_down = Some(killed);
    world.two.kill()?;
    let maintenance = |record: &Record| record.outcome == crate::lab::load::Outcome::Maintenance;
    let first = world.load()?.wait_for("a visitor gets the page", killed, PATIENCE, maintenance)?;
    let after = quiet_again(world, killed)?;
    figures.page = Some(first.ended() - killed);

    let page = world.visitor.get("/some/article")?;
    stage.plain("");
    stage.quote(&format!("{:?} {}", page.version, page.status));
    for name in ["content-type", "retry-after", "cache-control", "x-request-id"] {
        if let Some(value) = page.header(name) {
            stage.quote(&format!("{name}: {value}"));
        }
    }
    stage.quote("");
    for paragraph in words_of(&page.text()) {
        stage.quote(&wrapped(&paragraph, 70));
    }
    stage.plain("");
    stage.strip(&world.load()?.records(), killed, "killed");
    stage.plain("");
    stage.fact(page.is_maintenance(), "503 with Retry-After and no-store, made by the edge itself");
    stage.fact(failed(&after) == 0, &format!("since then: {}", summary(&after)));
    stage.fact(
        figures.page.is_some_and(|page| page < Duration::from_millis(250)),
        &format!("the first page came {} after the kill", words(first.ended() - killed)),
    );
    Ok(())
}

pub fn they_return(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
    ledger: &mut Ledger,
) -> anyhow::Result<()> {
    stage.scene("The servers return, and so does the traffic");
    stage.act("both servers are started again");
    let begun = Instant::now();
    world.one.start_again(&world.lab)?;
    world.two.start_again(&world.lab)?;
    let ready = Instant::now();
    let load = world.load()?;
    let first = stage.meanwhile("waiting for the first answer", || {
        load.wait_for("a server answers", begun, PATIENCE, Record::is_served)
    })?;
    ledger.back = Some(first.ended());
    for name in ["one", "two"] {
        load.wait_for(&format!("server {name} answers"), begun, PATIENCE, |record| record.served_by(name))?;
    }
    // The first may be back before the second has started.
    let recovery = first.ended().saturating_duration_since(ready);
    figures.recovery = Some(recovery);
    load.wait_for_more(20, PATIENCE)?;

    stage.plain("");
    stage.strip(&load.records(), first.begun, "the first answer");
    stage.plain("");
    let after: Vec<_> = load.records().into_iter().filter(|record| record.begun > first.ended()).collect();
    stage.fact(
        recovery < Duration::from_secs(1),
        &format!("served again {} after they accepted", words(recovery)),
    );
    stage.fact(after.iter().all(Record::is_served), &format!("since then: {}", summary(&after)));
    Ok(())
}

pub fn one_hangs(stage: &mut Stage, world: &mut World, figures: &mut Figures) -> anyhow::Result<()> {
    stage.scene("A server hangs: it accepts, and never answers");
    stage.act("kill -STOP on server one: its kernel still accepts and acknowledges");
    let hung = Instant::now();
    world.one.hang()?;
    let after = stage.meanwhile("looking at the traffic", || quiet_again(world, hung));
    stage.plain("");
    stage.strip(&world.load()?.records(), hung, "hangs");
    stage.plain("");
    let after = after?;
    let wait = longest(&after);
    figures.hang_failover = Some(wait);
    stage.fact(after.iter().all(Record::is_served), &format!("since then: {}", summary(&after)));
    stage.fact(wait < Duration::from_secs(2), &format!("nobody waited longer than {}", words(wait)));

    stage.act("kill -CONT: it goes on");
    let resumed = Instant::now();
    world.one.resume()?;
    let load = world.load()?;
    let back = stage.meanwhile("waiting for its first answer", || {
        load.wait_for("server one answers again", resumed, PATIENCE, |record| record.served_by("one"))
    })?;
    stage.fact(true, &format!("it answers visitors again after {}", words(back.ended() - resumed)));
    Ok(())
}

pub fn the_load_is_judged(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
    ledger: &Ledger,
) -> anyhow::Result<()> {
    stage.scene("The account of the visitor's load");
    let records = world.load.take().context("no load is running")?.stop()?;
    let failed: Vec<_> = records.iter().filter(|&record| ledger.is_failed(record)).cloned().collect();
    figures.requests = records.len();
    figures.failed_requests = Some(failed.len());
    stage.note(&summary(&records));
    stage.fact(
        failed.is_empty(),
        &if failed.is_empty() {
            format!("{} requests, none failed", records.len())
        } else {
            format!("{} of {} requests failed: {}", failed.len(), records.len(), summary(&failed))
        },
    );
    Ok(())
}

/// Waits until three quarters of a second's worth of requests have begun after `moment` and ended, and every
/// request that was in flight then has too; returns all that ended since.
fn quiet_again(world: &World, moment: Instant) -> anyhow::Result<Vec<Record>> {
    let load = world.load()?;
    load.wait_for_more(RATE as usize * 3 / 4, PATIENCE)?;
    load.wait_until_past(Instant::now(), PATIENCE)?;
    Ok(load.records_since(moment))
}

/// A page's text without its markup, by paragraphs.
fn words_of(html: &str) -> Vec<String> {
    let body = html.split_once("<body").map_or(html, |(_, body)| body);
    let mut paragraphs = vec![String::new()];
    // Every piece begins with what is left of a tag; the first one with that of `<body`.
    for piece in body.split('<') {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        if ["p", "h1", "h2", "div", "/p"].contains(&tag.split(' ').next().unwrap_or_default()) {
            paragraphs.push(String::new());
        }
        if let Some(paragraph) = paragraphs.last_mut() {
            if tag.starts_with("br") {
                paragraph.push(' ');
            }
            paragraph.push_str(text);
        }
    }
    let tidy = |paragraph: String| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    paragraphs.into_iter().map(tidy).filter(|paragraph| !paragraph.is_empty()).collect()
}

fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
