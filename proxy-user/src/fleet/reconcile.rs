//! What a host does with what it knows of the store. Pure: news and times are arguments, and what is to be done comes out.
//!
//! ```text
//! learn(current) ─► next(now) ─► Need(7) ─► stock(7) ─► next(now) ─► Offer(7) ─► outcome(7, ok | why not)
//! ```
//!
//! Whatever happens, what runs goes on until something that is better known to be wanted, whole and valid takes its place:
//! news that can't be believed and a store that is away change nothing. A trial that nobody confirmed ends by the host's
//! own clock, also when the store can't be asked: perhaps it can't be asked because of what is on trial.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::{Rejected, Standing, shortened};
use crate::store::layout::{Current, Generation, Halted, LAYOUT, digest_of};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, as things are.
    Stay,
    /// To have this generation from the store.
    Need(u64),
    /// To run this generation, and tell what became of it.
    Offer(Generation),
}

/// A host's own mind.
#[derive(Debug)]
pub struct Reconciler {
    host: String,
    known: Option<Current>,
    stock: BTreeMap<u64, Generation>,
    /// What was offered last, with or without an outcome.
    offered: Option<u64>,
    /// What an earlier daemon ran: for the time in which what is wanted can't be had.
    earlier: Option<u64>,
    standing: Standing,
}

/// What outlives the daemon: so that it starts as it was while the store is away, and a trial ends all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub version: u32,
    pub known: Option<Current>,
    /// The one that runs, and the one that would be gone back to.
    pub stock: Vec<Generation>,
    pub running: Option<u64>,
}

/// Of [`Memory`] on disk.
pub const MEMORY_VERSION: u32 = 1;

impl Reconciler {
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            known: None,
            stock: BTreeMap::new(),
            offered: None,
            earlier: None,
            standing: Standing::default(),
        }
    }

    /// Goes on where an earlier daemon was.
    pub fn remember(&mut self, memory: Memory) {
        self.known = memory.known;
        // What was damaged on disk is asked for anew.
        let whole = memory.stock.into_iter().filter(|one| one.digest == digest_of(&one.documents));
        self.stock = whole.map(|generation| (generation.generation, generation)).collect();
        self.earlier = memory.running;
    }

    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            version: MEMORY_VERSION,
            known: self.known.clone(),
            stock: self.stock.values().cloned().collect(),
            running: self.standing.generation,
        }
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn known(&self) -> Option<&Current> {
        self.known.as_ref()
    }

    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The store says what is current.
    pub fn learn(&mut self, current: Current) {
        let running = self.standing.generation.or(self.earlier).unwrap_or_default();
        let kept = [current.generation, current.previous, running];
        self.stock.retain(|number, _| kept.contains(number));
        self.known = Some(current);
    }

    /// A generation has come.
    pub fn stock(&mut self, generation: Generation) {
        self.stock.insert(generation.generation, generation);
    }

    /// A generation that can't be had, or not believed.
    pub fn damaged(&mut self, generation: u64, why: &str) {
        self.standing.rejected = Some(Rejected { generation, why: shortened(why) });
    }

    /// What became of what was offered.
    pub fn outcome(&mut self, generation: u64, outcome: Result<(), String>, now: i64) {
        match outcome {
            Ok(()) => {
                if self.standing.generation != Some(generation) {
                    self.standing.since = now;
                }
                self.standing.generation = Some(generation);
                // It can be run after all.
                if self.standing.rejected.as_ref().is_some_and(|rejected| rejected.generation == generation) {
                    self.standing.rejected = None;
                }
            }
            Err(why) => self.damaged(generation, &why),
        }
    }

    /// What to do now.
    #[must_use]
    pub fn next(&mut self, now: i64) -> Step {
        let Some(known) = &self.known else { return Step::Stay };
        let wanted = known.wanted(&self.host, now);
        if self.offered == Some(wanted) && !self.is_rejected(wanted) {
            return Step::Stay;
        }
        if !self.is_rejected(wanted) {
            if let Some(generation) = self.have(wanted) {
                self.offered = Some(wanted);
                return Step::Offer(generation);
            }
        } else if self.standing.generation.is_some() {
            return Step::Stay;
        }
        // A daemon that has just begun runs what the one before it ran, rather than nothing.
        match self.earlier.take().and_then(|earlier| self.have(earlier)) {
            Some(generation) => {
                self.offered = Some(generation.generation);
                Step::Offer(generation)
            }
            None if self.is_rejected(wanted) => Step::Stay,
            None => Step::Need(wanted),
        }
    }

    fn have(&self, generation: u64) -> Option<Generation> {
        if generation == 0 { Some(nothing()) } else { self.stock.get(&generation).cloned() }
    }

    /// What would be gone back to, while that may happen: it must be here when the store isn't.
    #[must_use]
    pub fn spare(&self, now: i64) -> Option<u64> {
        let known = self.known.as_ref().filter(|known| known.is_watched(now))?;
        (known.previous != 0 && !self.stock.contains_key(&known.previous)).then_some(known.previous)
    }

    /// When to look again without any news, in milliseconds since 1970.
    #[must_use]
    pub fn due(&self, now: i64) -> Option<i64> {
        self.known.as_ref()?.confirm_by.filter(|by| *by > now)
    }

    /// Whether the store should be told that what is current goes, and why: this host can't run it, answers worse with it
    /// (`verdict`), or its trial is over.
    #[must_use]
    pub fn halt(&self, verdict: Option<&str>, now: i64) -> Option<Halted> {
        let known = self.known.as_ref()?;
        let halted =
            |why: String| Halted { generation: known.generation, by: self.host.clone(), why, at: now };
        if known.is_over(now) {
            return Some(halted("nobody confirmed it in time".to_owned()));
        }
        if !known.is_watched(now) {
            return None;
        }
        let rejected = self.standing.rejected.as_ref();
        if let Some(rejected) = rejected.filter(|rejected| rejected.generation == known.generation) {
            // A host that runs nothing may be at fault itself: it speaks for itself alone.
            return self.standing.generation.map(|_| halted(rejected.why.clone()));
        }
        let runs = self.standing.generation == Some(known.generation);
        // One that was gone back to has run before: what still fails is an earlier one's doing, or nobody's. And from the first, there
        // is nowhere to go.
        let is_new = known.halted.is_none() && known.previous != 0;
        verdict.filter(|_| runs && is_new).map(|why| halted(why.to_owned()))
    }

    fn is_rejected(&self, generation: u64) -> bool {
        self.standing.rejected.as_ref().is_some_and(|rejected| rejected.generation == generation)
    }
}

/// What there was before the first generation.
#[must_use]
pub fn nothing() -> Generation {
    Generation {
        layout: LAYOUT,
        generation: 0,
        digest: digest_of(&[]),
        base: 0,
        author: String::new(),
        at: 0,
        message: String::new(),
        documents: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation { generation: number, ..nothing() }
    }

    fn current(generation: u64, previous: u64) -> Current {
        Current {
            layout: LAYOUT,
            generation,
            digest: String::new(),
            previous,
            latest: generation.max(previous),
            canary: Vec::new(),
            at: 0,
            watch_until: 1_000,
            confirm_by: None,
            halted: None,
            author: String::new(),
            more: serde_json::Map::new(),
        }
    }

    /// One that runs generation 5.
    fn settled() -> Reconciler {
        let mut host = Reconciler::new("edge-1");
        host.learn(current(5, 0));
        host.stock(generation(5));
        assert_eq!(host.next(0), Step::Offer(generation(5)));
        host.outcome(5, Ok(()), 10);
        host
    }

    #[test]
    fn what_is_current_is_fetched_offered_once_and_run() {
        let mut host = Reconciler::new("edge-1");
        assert_eq!(host.next(0), Step::Stay, "nothing is known");
        host.learn(current(5, 0));
        assert_eq!(host.next(0), Step::Need(5));
        host.stock(generation(5));
        assert_eq!(host.next(0), Step::Offer(generation(5)));
        assert_eq!(host.next(0), Step::Stay);
        host.outcome(5, Ok(()), 10);
        assert_eq!(host.standing(), &Standing { generation: Some(5), since: 10, rejected: None });
    }

    #[test]
    fn what_it_cant_run_is_not_tried_again_and_is_to_be_halted_while_it_is_watched() {
        let mut host = settled();
        host.learn(current(6, 5));
        host.stock(generation(6));
        assert_eq!(host.next(20), Step::Offer(generation(6)));
        host.outcome(6, Err("port taken".into()), 21);
        assert_eq!(host.next(22), Step::Stay);
        assert_eq!(host.standing().generation, Some(5), "what ran before runs on");
        let halted = host.halt(None, 22).unwrap();
        assert_eq!((halted.generation, &*halted.by, &*halted.why), (6, "edge-1", "port taken"));
        assert_eq!(host.halt(None, 1_000), None, "later it is this host's own trouble");
        // It is taken back, and what runs is offered once more: it must stand where the next reload looks.
        host.learn(host.known().unwrap().back(&generation(5), halted, 1_000));
        assert_eq!(host.next(23), Step::Offer(generation(5)));
        assert_eq!(host.halt(None, 23), None);
    }

    #[test]
    fn a_host_that_runs_nothing_yet_takes_nothing_back() {
        let mut host = Reconciler::new("edge-1");
        host.learn(current(6, 5));
        host.stock(generation(6));
        let _ = host.next(20);
        host.outcome(6, Err("port taken".into()), 21);
        assert_eq!(host.halt(None, 22), None);
        assert!(host.standing().rejected.is_some(), "but it says so");
    }

    #[test]
    fn a_damaged_generation_is_as_one_that_cant_run() {
        let mut host = settled();
        host.learn(current(6, 5));
        assert_eq!(host.next(20), Step::Need(6));
        host.damaged(6, "its digest is wrong");
        assert_eq!(host.next(20), Step::Stay);
        assert!(host.halt(None, 20).is_some());
    }

    #[test]
    fn a_trial_ends_by_the_clock_without_the_store() {
        let mut host = settled();
        host.learn(Current { confirm_by: Some(500), ..current(6, 5) });
        host.stock(generation(6));
        assert_eq!(host.next(20), Step::Offer(generation(6)));
        host.outcome(6, Ok(()), 20);
        assert_eq!((host.due(20), host.spare(20)), (Some(500), None));
        assert_eq!(host.next(499), Step::Stay);
        assert_eq!(host.next(500), Step::Offer(generation(5)));
        assert!(host.halt(None, 500).unwrap().why.contains("nobody confirmed"));
    }

    #[test]
    fn what_would_be_gone_back_to_is_fetched_beforehand() {
        let mut host = Reconciler::new("edge-1");
        host.learn(Current { confirm_by: Some(500), ..current(6, 5) });
        assert_eq!(host.spare(20), Some(5));
        host.stock(generation(5));
        assert_eq!(host.spare(20), None);
        host.learn(Current { watch_until: 0, ..current(6, 5) });
        assert_eq!(host.spare(20), None, "it is settled");
    }

    #[test]
    fn a_host_that_answers_worse_with_it_takes_it_back_only_if_it_runs_it() {
        let mut host = settled();
        host.learn(current(6, 5));
        assert_eq!(host.halt(Some("10 % failed"), 20), None, "it still runs the one before");
        host.stock(generation(6));
        let _ = host.next(20);
        host.outcome(6, Ok(()), 20);
        let halted = host.halt(Some("10 % failed"), 30).unwrap();
        assert_eq!(halted.why, "10 % failed");
        // It is back at the one before, which may fail on for a while: that is no reason to go further back.
        let base = Generation { base: 4, ..generation(5) };
        host.learn(host.known().unwrap().back(&base, halted, 1_000));
        assert_eq!(host.next(31), Step::Offer(generation(5)));
        host.outcome(5, Ok(()), 31);
        assert_eq!(host.halt(Some("50 % failed"), 40), None);
    }

    #[test]
    fn the_first_generation_is_not_given_up_for_nothing() {
        assert_eq!(settled().halt(Some("10 % failed"), 20), None);
    }

    #[test]
    fn a_daemon_goes_on_where_the_last_one_was() {
        let mut host = settled();
        host.learn(Current { confirm_by: Some(500), ..current(6, 5) });
        host.stock(generation(6));
        let _ = host.next(20);
        host.outcome(6, Ok(()), 20);
        for (now, runs) in [(30, 6), (600, 5)] {
            let mut next = Reconciler::new("edge-1");
            next.remember(host.memory());
            assert_eq!(next.next(now), Step::Offer(generation(runs)), "at {now}, without the store");
        }
    }

    #[test]
    fn a_daemon_that_cant_have_or_run_what_is_wanted_begins_with_what_ran() {
        let memory = Memory { known: Some(current(7, 6)), ..settled().memory() };
        let mut away = Reconciler::new("edge-1");
        away.remember(memory.clone());
        assert_eq!(away.next(0), Step::Offer(generation(5)), "7 was never seen here");
        away.outcome(5, Ok(()), 0);
        assert_eq!(away.next(0), Step::Need(7));
        away.stock(generation(7));
        assert_eq!(away.next(0), Step::Offer(generation(7)));

        let mut faulty = Reconciler::new("edge-1");
        faulty.remember(Memory { stock: vec![generation(5), generation(7)], ..memory });
        assert_eq!(faulty.next(0), Step::Offer(generation(7)));
        faulty.outcome(7, Err("port taken".into()), 0);
        assert_eq!(faulty.next(0), Step::Offer(generation(5)));
        faulty.outcome(5, Ok(()), 0);
        assert_eq!(faulty.next(0), Step::Stay);
    }

    #[test]
    fn before_the_first_generation_there_is_nothing_to_go_back_to_but_nothing() {
        let mut host = Reconciler::new("edge-2");
        host.learn(Current { canary: vec!["edge-1".into()], ..current(1, 0) });
        assert_eq!(host.next(0), Step::Offer(nothing()));
    }
}
