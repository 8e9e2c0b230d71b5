//! Switches: between the ledger, which knows who has the last word, and those to whom they belong.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Manner, Owners, Unclear};
use crate::{
    control::{apply::Fleet, guard::Guard},
    fleet::{
        self,
        shared::{
            SWITCHES,
            board::{Board, Counts},
            kept,
            ledger::{Found, Ledger, Step, Word},
            link::{Link, Value, Write},
            switch::{Said, Switch, Switches, changes},
        },
    },
    snapshot::Snapshot,
    variants::memory::Kept,
};

/// So many switches that could not be taken up are tried again.
const MOST_WAITING: usize = 100;

#[derive(Debug)]
pub struct Switching {
    host: Arc<str>,
    kept: PathBuf,
    prefix: String,
    ledger: Ledger,
    /// As it is on the disk.
    saved: Option<Ledger>,
    /// What the ledger wants done.
    steps: Vec<Step>,
    /// What could not be taken up, by name, and why.
    waiting: BTreeMap<String, (Word, String)>,
    /// The weights that were seen last: judges change them too.
    weights: Option<Switches>,
}

/// All that is on.
pub fn switches(owners: &Owners<'_>, snapshot: &Snapshot) -> Switches {
    let blocks = snapshot.blocks.list();
    let drains = snapshot.drains.list();
    let mut all: Vec<Switch> = blocks.iter().map(Switch::from).collect();
    all.extend(owners.maintaining.ordered().iter().map(Switch::from));
    all.extend(drains.servers.iter().map(Switch::from));
    let mut on: Switches = all.into_iter().map(|switch| (switch.name(), switch)).collect();
    on.extend(weights(&snapshot.splits.all()));
    on
}

fn weights(splits: &BTreeMap<String, Kept>) -> Switches {
    let set = splits.iter().filter_map(|(name, kept)| {
        let switch = Switch::Split { name: name.clone(), weights: kept.weights.clone()? };
        Some((switch.name(), switch))
    });
    set.collect()
}

impl Switching {
    /// Takes up what is kept in the state folder.
    pub fn at_start(host: &Arc<str>, state: &Path, prefix: &str) -> Self {
        let kept = kept::path(state);
        let ledger = kept::load_or_set_aside(&kept, prefix);
        Self {
            host: host.clone(),
            kept,
            prefix: prefix.to_owned(),
            saved: Some(ledger.clone()),
            ledger,
            steps: Vec::new(),
            waiting: BTreeMap::new(),
            weights: None,
        }
    }

    pub fn show(&self, board: &Board) {
        board.show(&self.ledger);
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn away(&mut self) {
        self.ledger.away();
    }

    pub fn whole(
        &mut self,
        cluster: u64,
        at: i64,
        found: Vec<(String, Value)>,
        on: &Switches,
        unclear: &mut Unclear,
    ) {
        let found = found.into_iter().map(|(name, value)| {
            let found = read(&name, &value, unclear);
            (name, found)
        });
        let steps = self.ledger.whole(cluster, at, &found.collect(), on, &self.host);
        self.steps.extend(steps);
    }

    pub fn changed(&mut self, name: &str, value: Option<Value>, unclear: &mut Unclear) {
        let found = value.map(|value| read(name, &value, unclear));
        self.steps.extend(self.ledger.changed(name, found.as_ref()));
    }

    /// Does what the ledger wants done.
    pub async fn settle(
        &mut self,
        link: &Link,
        owners: Owners<'_>,
        guard: &Guard,
        fleet: &mut Fleet,
        board: &Board,
    ) {
        let mut words = BTreeMap::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Take(word) => {
                    self.waiting.remove(&word.name);
                    // Of several about the same, the last one counts.
                    words.insert(word.name.clone(), word);
                }
                Step::Write { name, said, only_at } => write(link, &name, &said, only_at, board),
                Step::GaveWay { name, mine, host } => {
                    let by = host.as_deref().unwrap_or("another host");
                    tracing::warn!(
                        "`{name}` was switched {} here while the store was away, and at {by} too: what was said there holds",
                        if mine.switch.is_some() { "on" } else { "off" }
                    );
                }
            }
        }
        self.take(words.into_values().collect(), owners, guard, fleet, board).await;
        self.keep(board);
    }

    /// Tries once more what could not be taken up.
    pub async fn try_again(&mut self, owners: Owners<'_>, guard: &Guard, fleet: &mut Fleet, board: &Board) {
        let words = self.waiting.values().map(|(word, _)| word.clone()).collect();
        self.take(words, owners, guard, fleet, board).await;
    }

    /// An operator has switched something here.
    pub fn ordered(
        &mut self,
        before: &Switches,
        now: &Switches,
        manner: Manner,
        link: &Link,
        board: &Board,
    ) -> Option<&'static str> {
        let changed = changes(before, now);
        self.ledger.forget_here(now);
        self.weights = None;
        if changed.is_empty() {
            return None;
        }
        let mut told = "here";
        for (name, switch) in changed {
            self.waiting.remove(&name);
            if manner.here {
                self.ledger.said_here(&name);
                continue;
            }
            let said = Said::new(&self.host, fleet::now(), manner.force, switch);
            if let Err(why) = Said::read(&name, &said.write()) {
                tracing::warn!("the other hosts are not told of `{name}`: {why}");
                self.ledger.said_here(&name);
                continue;
            }
            told = if self.ledger.is_connected() { "told" } else { "later" };
            if let Some(Step::Write { name, said, only_at }) = self.ledger.said(&name, said) {
                write(link, &name, &said, only_at, board);
            } else if self.ledger.is_here_only(&name) {
                tracing::warn!("the other hosts are not told of `{name}`: too much is shared already");
                told = "here";
            }
        }
        self.keep(board);
        Some(told)
    }

    /// Tells what judges have changed since this was called last.
    pub fn judges_have_decided(&mut self, splits: &BTreeMap<String, Kept>, link: &Link, board: &Board) {
        if splits.is_empty() && self.weights.as_ref().is_none_or(Switches::is_empty) {
            return;
        }
        let now = weights(splits);
        if let Some(before) = self.weights.take().filter(|before| *before != now) {
            self.ordered(&before, &now, Manner { here: false, force: false }, link, board);
        }
        self.weights = Some(now);
    }

    async fn take(
        &mut self,
        words: Vec<Word>,
        owners: Owners<'_>,
        guard: &Guard,
        fleet: &mut Fleet,
        board: &Board,
    ) {
        if words.is_empty() {
            return;
        }
        let of = |kind: &str| words.iter().filter(|word| word.name.starts_with(kind)).collect::<Vec<_>>();
        let running = fleet.running().load_full();
        let Owners { blocking, draining, maintaining, splits } = owners;
        let (blocks, drains) = (of("blocks/"), of("drains/"));
        let (windows, weights) = (of("maintenance/"), of("splits/"));
        let outcomes = [
            (&blocks, blocking.take(&blocks, guard, fleet).await),
            (&drains, draining.take(&drains, &running)),
            (&windows, maintaining.take(&windows, &running.config)),
            (&weights, splits.take(&weights, fleet)),
        ];
        for (word, outcome) in outcomes.into_iter().flat_map(|(words, all)| words.iter().zip(all)) {
            match outcome {
                Ok(()) => {
                    Counts::add(&board.counts.taken, 1);
                    self.waiting.remove(&word.name);
                }
                Err(why) => self.could_not(word, why, board),
            }
        }
        self.weights = None;
    }

    fn could_not(&mut self, word: &Word, why: String, board: &Board) {
        if self.waiting.get(&word.name).is_some_and(|(_, known)| *known == why) {
            return;
        }
        Counts::add(&board.counts.refused, 1);
        let by = word.host.as_deref().unwrap_or("another host");
        tracing::warn!("`{}`, as it was switched at {by}, does not hold here: {why}", word.name);
        if self.waiting.len() < MOST_WAITING {
            self.waiting.insert(word.name.clone(), ((*word).clone(), why));
        }
    }

    fn keep(&mut self, board: &Board) {
        if self.saved.as_ref() == Some(&self.ledger) {
            return;
        }
        board.show(&self.ledger);
        self.saved = Some(self.ledger.clone());
        if let Err(why) = kept::save(&self.kept, &self.prefix, &self.ledger) {
            tracing::warn!("{why}: after a restart this host knows less of what others have switched");
        }
    }
}

fn read(name: &str, value: &Value, unclear: &mut Unclear) -> Found {
    let said = Said::read(name, &value.bytes).map_err(|why| unclear.add(name, why)).ok();
    Found { revision: value.revision, said }
}

fn write(link: &Link, name: &str, said: &Said, only_at: Option<i64>, board: &Board) {
    Counts::add(&board.counts.told, 1);
    let lasts = said.lasts(Timestamp::now());
    link.write(Write {
        key: format!("{SWITCHES}{name}"),
        bytes: said.write(),
        lasts,
        only_at,
        or_anew: true,
    });
}
