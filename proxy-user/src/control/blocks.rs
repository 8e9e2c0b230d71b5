//! Blocks people, and lets them go: `weir block`. Keeps the disk, the gate and the check at accept in step.

mod taken;

use std::{path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::time::Instant;

use super::{
    apply::Fleet,
    guard::Guard,
    order::{Answer, Block as Wanted, Refusal, Unblock},
};
use crate::{
    blocklist::{Block, Blocklist, Blocks, store},
    config::{model::Config, parse_prefix},
    journal::{Kind, Note},
    kernel::blocks::BlockedPrefix,
};

/// From a second to ten years.
const SPAN: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 3600);

/// However far the next end is, the clock is looked at again after this: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is blocked, as the control side keeps it.
#[derive(Debug)]
pub struct Blocking {
    kept: PathBuf,
    blocks: Arc<Blocks>,
    look: Instant,
    /// By what the gate was last told: the snapshot, whose lists say who is a CDN's, and how far the wall clock was ahead of the
    /// gate's.
    told: (u64, i128),
}

impl Blocking {
    /// Takes up what is kept in the state folder. Nothing holds before [`Self::hold`].
    pub fn at_start(config: &Config) -> (Self, Vec<BlockedPrefix>) {
        let kept = store::path(&config.state.dir);
        let mut list = store::load_or_set_aside(&kept);
        list.expire(Timestamp::now());
        let prefixes = for_the_gate(&list, config);
        let blocks = Arc::<Blocks>::default();
        if !list.is_empty() {
            tracing::info!("{} blocks hold from before (`weir block list`)", list.len());
        }
        blocks.set(list);
        let blocking = Self { kept, blocks, look: Instant::now() + LOOK_AGAIN, told: (0, ahead()) };
        (blocking, prefixes)
    }

    /// Tells the gate anew who is blocked, if a CDN's lists may have changed, or if the wall clock was set: a block ends when it
    /// was said to, by that clock. Costs next to nothing otherwise.
    pub async fn keep_up(&mut self, fleet: &mut Fleet) {
        let now = (fleet.generation(), ahead());
        let was_set = was_set(self.told.1, now.1);
        if now.0 == self.told.0 && !was_set {
            return;
        }
        self.told = now;
        let mut list = self.blocks.list();
        if list.is_empty() {
            return;
        }
        if was_set {
            tracing::info!("the clock was set: the ends of blocks are reckoned anew");
        }
        list.expire(Timestamp::now());
        let blocked = for_the_gate(&list, &fleet.running().load().config);
        if let Err(fault) = fleet.kernel.block(blocked).await {
            tracing::error!(%fault, "the gate could not be told anew who is blocked: it goes on with what it knows");
        }
        self.look_next();
    }

    /// What the check at accept asks.
    pub fn shared(&self) -> Arc<Blocks> {
        self.blocks.clone()
    }

    /// Resolves when it is time to look what has ended. Safe to cancel.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.look).await;
    }

    /// Lets go what has ended.
    pub async fn look(&mut self, fleet: &mut Fleet) {
        let mut list = self.blocks.list();
        let ended = list.expire(Timestamp::now());
        for block in &ended {
            tracing::info!(why = block.why, "the block of {} has ended", block.prefix);
            Note::new(Kind::Unblocked, format!("the block of {} has ended", block.prefix)).write();
        }
        if ended.is_empty() {
            self.look_next();
        } else if let Err(refusal) = self.hold(list, fleet).await {
            tracing::error!(%refusal, "blocks that have ended could not be taken out: they don't hold any more all the same");
            self.look = Instant::now() + LOOK_AGAIN;
        }
    }

    /// # Errors
    /// When it is refused; then nothing has changed.
    pub async fn add(&mut self, wanted: Wanted, guard: &Guard, fleet: &mut Fleet) -> Answer {
        let faulty = |sentence: String| Refusal::Faulty(format!("error: {sentence}"));
        let prefix = parse_prefix(&wanted.prefix).map_err(|refusal| {
            let hint = refusal.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            faulty(format!("`{}` {}{hint}", wanted.prefix, refusal.because))
        })?;
        let now = Timestamp::now();
        let span = wanted.for_ms.map(Duration::from_millis);
        if span.is_none() != wanted.forever {
            return Err(faulty("say how long: `--for 1h`, or `--for forever`".into()));
        }
        if let Some(span) = span.filter(|span| !SPAN.contains(span)) {
            return Err(faulty(format!("a block takes from 1s to ten years, not {span:?}")));
        }
        let running = fleet.running().load_full();
        if !wanted.cdn {
            spares_the_cdn(prefix, &running.config)?;
        }
        if !wanted.force {
            guard
                .check_block(prefix, wanted.cdn, &running.config, wanted.session())
                .map_err(Refusal::Refused)?;
        }
        let until = span.map(|span| now + jiff::SignedDuration::try_from(span).unwrap_or_default());
        let block = Block { prefix, until, why: wanted.why, cdn: wanted.cdn, since: now };
        let mut list = self.blocks.list();
        let before = list.add(block.clone());
        self.hold(list, fleet).await?;
        tracing::info!(why = block.why, until = %said(until), cdn = block.cdn, "{prefix} is blocked");
        Note::new(Kind::Blocked, format!("{prefix} is blocked, until: {}", said(until)))
            .why(&block.why)
            .write();
        Ok(json!({ "block": block, "replaced": before }))
    }

    /// # Errors
    /// When there is no such block.
    pub async fn remove(&mut self, wanted: Unblock, fleet: &mut Fleet) -> Answer {
        let mut list = self.blocks.list();
        let prefix = parse_prefix(&wanted.prefix)
            .map_err(|refusal| Refusal::Faulty(format!("error: `{}` {}", wanted.prefix, refusal.because)))?;
        let Some(block) = list.remove(prefix) else {
            let around = list.iter().filter(|block| block.prefix.contains(&prefix));
            let around: Vec<_> = around.map(|block| format!("{} covers it", block.prefix)).collect();
            let around = if around.is_empty() { String::new() } else { format!(" ({})", around.join(", ")) };
            return Err(Refusal::Refused(format!(
                "{prefix} is not blocked{around}; `weir block list` shows what is"
            )));
        };
        self.hold(list, fleet).await?;
        tracing::info!(why = block.why, "{prefix} is not blocked any more");
        Note::new(Kind::Unblocked, format!("{prefix} is not blocked any more")).write();
        Ok(json!({ "removed": block }))
    }

    /// Makes a list the one that holds, in the gate, on the disk and at accept.
    async fn hold(&mut self, list: Blocklist, fleet: &mut Fleet) -> Result<(), Refusal> {
        let refused = |why: String| Refusal::Refused(format!("nothing was changed: {why}"));
        let running = fleet.running().load_full();
        fleet
            .kernel
            .block(for_the_gate(&list, &running.config))
            .await
            .map_err(|fault| refused(fault.to_string()))?;
        if let Err(why) = store::save(&self.kept, &list) {
            let before = for_the_gate(&self.blocks.list(), &running.config);
            if let Err(fault) = fleet.kernel.block(before).await {
                tracing::error!(%fault, "the gate can't go back to the blocks before");
            }
            return Err(refused(format!("{why} (`[state] dir`)")));
        }
        self.blocks.set(list);
        self.look_next();
        Ok(())
    }

    fn look_next(&mut self) {
        let left = self.blocks.list().next_end().map(|end| end.duration_since(Timestamp::now()));
        let left = left.map_or(LOOK_AGAIN, |left| Duration::try_from(left).unwrap_or_default());
        // Not before it: a timer may be a millisecond early.
        self.look = Instant::now() + left.min(LOOK_AGAIN) + Duration::from_millis(2);
    }
}

/// A ban of a CDN's address hits everybody behind it.
fn spares_the_cdn(prefix: IpNet, config: &Config) -> Result<(), Refusal> {
    for list in config.allowlists.iter().filter(|list| list.cdn) {
        let overlaps = |known: &&IpNet| known.contains(&prefix) || prefix.contains(*known);
        if let Some(known) = list.prefixes.iter().find(overlaps) {
            return Err(Refusal::Refused(format!(
                "{prefix} overlaps {known} of the CDN's allowlist `{}`: a ban there hits the CDN, not the visitor; `--cdn` \
                 bans it all the same",
                list.name
            )));
        }
    }
    Ok(())
}

fn for_the_gate(list: &Blocklist, config: &Config) -> Vec<BlockedPrefix> {
    if list.is_empty() {
        return Vec::new();
    }
    let cdns = config.allowlists.iter().filter(|list| list.cdn).flat_map(|list| &list.prefixes);
    list.for_the_gate(&cdns.map(IpNet::trunc).collect(), Timestamp::now(), booted())
}

/// Nanoseconds of the clock that the gate reads: it goes on while the host sleeps.
fn booted() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}

/// By how many nanoseconds the wall clock is ahead of the gate's.
fn ahead() -> i128 {
    Timestamp::now().as_nanosecond() - i128::from(booted())
}

/// Both clocks are steered alike, so the distance only changes when the wall clock is set; or by what passes between two reads.
fn was_set(before: i128, now: i128) -> bool {
    (now - before).unsigned_abs() > 500_000_000
}

fn said(until: Option<Timestamp>) -> String {
    until.map_or_else(|| "forever".to_owned(), |until| until.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_runs_is_not() {
        let begun = ahead();
        assert!(!was_set(begun, ahead()));
        for set in [-3_600_000_000_000, -600_000_000, 600_000_000, 86_400_000_000_000] {
            assert!(was_set(begun, begun + set), "{set}");
        }
    }
}
