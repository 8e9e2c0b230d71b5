//! Who has the last word about each switch. Pure.
//!
//! **The store's revisions decide, and no host's clock.** While the store is there, whoever speaks last is heard: a word is written
//! without asking, and all hosts take up what the store tells in the store's order.
//!
//! What was said while the store was away comes later than it was meant. So it is only written if nobody has said anything about
//! the same switch since this host knew it last (compare-and-swap by revision). If somebody has, theirs holds here too, and that is
//! told: what all other hosts do already shall not be undone by the one that was alone.
//!
//! A name that isn't in the store any more is off. But a store that has fewer revisions than were seen there is another one, or
//! has lost what it had: then hosts give it what they know.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    MOST,
    switch::{Said, Switch, Switches},
};

/// What a host knows of the store, and what it has yet to say there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    store: Option<Seen>,
    known: BTreeMap<String, Known>,
    /// Said here, and not seen in the store yet.
    unsaid: BTreeMap<String, Said>,
    /// What is meant for this host alone, and differs from what the others do.
    here: BTreeSet<String>,
    /// The store is there.
    #[serde(skip)]
    connected: bool,
}

/// A store, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    cluster: u64,
    revision: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    revision: i64,
    host: String,
    on: bool,
}

/// What stands in the store under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub revision: i64,
    /// `None`: something that can't be understood.
    pub said: Option<Said>,
}

/// Something that is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Another host has switched this.
    Take(Word),
    /// To be written; only if it stands at this revision (0: isn't there), or whatever is there.
    Write { name: String, said: Said, only_at: Option<i64> },
    /// What was said here while the store was away doesn't hold: somebody else has spoken since.
    GaveWay { name: String, mine: Said, host: Option<String> },
}

/// A switch, and who has switched it.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    pub name: String,
    /// `None`: off.
    pub switch: Option<Switch>,
    /// `None`: nobody knows.
    pub host: Option<String>,
    pub force: bool,
}

// === impl Found ===

impl Found {
    fn is_on(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.switch.is_some())
    }
}

// === impl Ledger ===

impl Ledger {
    /// An operator has switched something at this host, for all.
    pub fn said(&mut self, name: &str, said: Said) -> Option<Step> {
        self.here.remove(name);
        let known = self.known.get(name);
        if said.switch.is_none() && known.is_none() && !self.unsaid.contains_key(name) {
            // The others never heard of it.
            return None;
        }
        if known.is_none() && !self.unsaid.contains_key(name) && self.len() >= MOST {
            self.here.insert(name.to_owned());
            return None;
        }
        self.unsaid.insert(name.to_owned(), said.clone());
        self.connected.then(|| Step::Write { name: name.to_owned(), said, only_at: None })
    }

    /// An operator has switched something for this host alone.
    pub fn said_here(&mut self, name: &str) {
        if self.here.len() < MOST {
            self.here.insert(name.to_owned());
        }
    }

    /// The store is there, and this is all that stands in it. `on`: what is on here.
    pub fn whole(
        &mut self,
        cluster: u64,
        at: i64,
        found: &BTreeMap<String, Found>,
        on: &Switches,
        host: &str,
    ) -> Vec<Step> {
        self.connected = true;
        let another = self.store.is_some_and(|seen| seen.cluster != cluster || at < seen.revision);
        self.store = Some(Seen { cluster, revision: at });
        if another {
            self.begin_anew(on, host);
        }
        let names: BTreeSet<String> =
            self.known.keys().chain(self.unsaid.keys()).chain(found.keys()).cloned().collect();
        names.into_iter().flat_map(|name| self.meet(&name, found.get(&name), on)).collect()
    }

    /// The store tells that something stands under a name now; `None`: nothing any more.
    pub fn changed(&mut self, name: &str, found: Option<&Found>) -> Option<Step> {
        let known = self.known.get(name).map_or(0, |known| known.revision);
        if let (Some(found), Some(seen)) = (found, &mut self.store) {
            seen.revision = seen.revision.max(found.revision);
        }
        match (found, self.unsaid.get(name)) {
            (Some(found), _) if found.revision <= known => None,
            (Some(Found { revision, said: Some(said) }), Some(mine)) if said == mine => {
                self.heard(name, *revision, said);
                None
            }
            // What is said here is on its way: it comes later, or isn't taken, and then all is read anew.
            (_, Some(_)) => None,
            (Some(found), None) => self.take(name, found),
            (None, None) => self.gone(name),
        }
    }

    /// The store is away.
    pub fn away(&mut self) {
        self.connected = false;
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Who has switched what is on; `None`: nobody who is known, or it is meant for this host alone.
    #[must_use]
    pub fn origin<'s>(&'s self, name: &str) -> Option<&'s str> {
        if self.here.contains(name) {
            return None;
        }
        let unsaid = self.unsaid.get(name).map(|said| &*said.host);
        unsaid.or_else(|| self.known.get(name).map(|known| &*known.host))
    }

    #[must_use]
    pub fn is_here_only(&self, name: &str) -> bool {
        self.here.contains(name)
    }

    /// How much the others don't know yet.
    #[must_use]
    pub fn unsaid(&self) -> usize {
        self.unsaid.len()
    }

    /// What ended by itself needs no note that it was for this host alone.
    pub fn forget_here(&mut self, on: &Switches) {
        let known = &self.known;
        self.here.retain(|name| on.contains_key(name) || known.contains_key(name));
    }

    fn len(&self) -> usize {
        self.known.len() + self.unsaid.len()
    }

    /// What was shared before is said again, unless it is off.
    fn begin_anew(&mut self, on: &Switches, host: &str) {
        for (name, known) in std::mem::take(&mut self.known) {
            if let Some(switch) = on.get(&name).filter(|_| known.on && !self.here.contains(&name)) {
                let host = if known.host.is_empty() { host } else { &known.host };
                let said = Said::new(host, known.revision, true, Some(switch.clone()));
                self.unsaid.entry(name).or_insert(said);
            }
        }
    }

    /// Holds what is known under a name, and what is yet to be said, against what stands there.
    fn meet(&mut self, name: &str, found: Option<&Found>, on: &Switches) -> Vec<Step> {
        let base = self.known.get(name).map_or(0, |known| known.revision);
        let write = |said: &Said, at: i64| {
            vec![Step::Write { name: name.to_owned(), said: said.clone(), only_at: Some(at) }]
        };
        match (self.unsaid.get(name), found) {
            (None, Some(found)) if found.revision != base => self.take(name, found).into_iter().collect(),
            // It was heard once, and didn't come to hold here.
            (None, Some(found)) if found.is_on() && !on.contains_key(name) && !self.here.contains(name) => {
                self.take(name, found).into_iter().collect()
            }
            (None, Some(_)) => Vec::new(),
            (None, None) => self.gone(name).into_iter().collect(),
            (Some(mine), Some(Found { revision, said: Some(said) })) if mine.agrees_with(said) => {
                self.heard(name, *revision, said);
                Vec::new()
            }
            (Some(mine), Some(Found { revision, said })) if *revision == base || said.is_none() => {
                write(mine, *revision)
            }
            (Some(mine), Some(found)) => {
                let host = found.said.as_ref().map(|said| said.host.clone());
                let gave_way = Step::GaveWay { name: name.to_owned(), mine: mine.clone(), host };
                self.unsaid.remove(name);
                std::iter::once(gave_way).chain(self.take(name, found)).collect()
            }
            // Nobody objects. It may have ended by itself, or was taken back so long ago that nobody knows.
            (Some(mine), None) if mine.switch.is_some() => write(mine, 0),
            (Some(_), None) => {
                self.unsaid.remove(name);
                self.known.remove(name);
                Vec::new()
            }
        }
    }

    /// What was said here stands in the store.
    fn heard(&mut self, name: &str, revision: i64, said: &Said) {
        self.unsaid.remove(name);
        let known = Known { revision, host: said.host.clone(), on: said.switch.is_some() };
        self.known.insert(name.to_owned(), known);
    }

    fn take(&mut self, name: &str, found: &Found) -> Option<Step> {
        // What can't be understood changes nothing here.
        let said = found.said.as_ref()?;
        if !self.known.contains_key(name) && self.len() >= MOST {
            return None;
        }
        let was_on = self.known.get(name).is_none_or(|known| known.on);
        self.heard(name, found.revision, said);
        self.here.remove(name);
        if said.switch.is_none() && !was_on {
            return None;
        }
        let Said { switch, host, force, .. } = said.clone();
        Some(Step::Take(Word { name: name.to_owned(), switch, host: Some(host), force }))
    }

    fn gone(&mut self, name: &str) -> Option<Step> {
        let known = self.known.remove(name)?;
        let kept_here = self.here.contains(name);
        let word = Word { name: name.to_owned(), switch: None, host: None, force: false };
        (known.on && !kept_here).then_some(Step::Take(word))
    }
}

#[cfg(test)]
mod tests;
