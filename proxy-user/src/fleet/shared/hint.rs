//! Servers that a host sees failing, as a hint for the others: they probe them at once, and believe what they find. Pure.
//!
//! Who sees many fail, or is in trouble itself, tells of some. What another host has just told isn't told again: when a server
//! fails, a thousand hosts notice within a second, and one or two of them say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::LAYOUT;

/// A hint stays in the store for so many seconds: it is news, not a state.
pub const LASTS: i64 = 60;

/// So many servers in one.
const MOST: usize = 64;

/// From one to the next at least.
const PACE: Duration = Duration::from_millis(300);

/// What others have told is told by nobody else for so long.
const FRESH: Duration = Duration::from_secs(10);

/// So many servers are probed because of hints within [`FRESH`], whoever gives them.
const MOST_PROBED: usize = 256;

/// As it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    layout: u32,
    /// Who tells it.
    pub host: String,
    /// Those that have begun to fail there: `SERVICE/SERVER`.
    pub failing: Vec<String>,
}

/// What one host has told and heard.
#[derive(Debug, Default)]
pub struct Hints {
    /// Those that fail as seen from here.
    failing: BTreeSet<String>,
    /// Of those, what is yet to be told.
    untold: BTreeSet<String>,
    told: Option<Instant>,
    /// What others have told lately.
    heard: BTreeMap<String, Instant>,
}

// === impl Hint ===

impl Hint {
    #[must_use]
    pub fn new(host: &str, failing: Vec<String>) -> Self {
        Self { layout: LAYOUT, host: host.to_owned(), failing }
    }

    /// # Errors
    /// A sentence, when it can't be believed.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        super::read(bytes, |hint: &Self| (hint.layout, &hint.host))
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

// === impl Hints ===

impl Hints {
    /// These fail now, as seen from here. What is to be told of that.
    pub fn see(&mut self, failing: BTreeSet<String>, now: Instant) -> Option<Vec<String>> {
        self.forget(now);
        self.untold.extend(failing.difference(&self.failing).cloned());
        let heard = &self.heard;
        self.untold.retain(|server| failing.contains(server) && !heard.contains_key(server));
        self.failing = failing;
        if self.untold.is_empty() || self.due().is_some_and(|due| now < due) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold).into_iter().take(MOST).collect())
    }

    /// When more may be told, if there is anything.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.told.filter(|_| !self.untold.is_empty()).map(|told| told + PACE)
    }

    /// Another host has told of these. Those that are to be probed.
    pub fn hear(&mut self, failing: Vec<String>, now: Instant) -> Vec<String> {
        self.forget(now);
        let mut probed = Vec::new();
        for server in failing.into_iter().take(MOST) {
            if self.heard.len() >= MOST_PROBED {
                break;
            }
            // Whoever tells of it a second time within moments tells no news.
            if self.heard.insert(server.clone(), now).is_none() {
                probed.push(server);
            }
        }
        probed
    }

    fn forget(&mut self, now: Instant) {
        self.heard.retain(|_, at| now.saturating_duration_since(*at) < FRESH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::shared::LARGEST;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_is_told_of_once_when_it_begins_to_fail_and_again_when_it_does_so_again() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        assert_eq!(hints.see(names(&["app/a"]), now), Some(vec!["app/a".to_owned()]));
        assert_eq!(hints.see(names(&["app/a"]), now + PACE), None, "no news");
        assert_eq!(hints.see(names(&[]), now + PACE), None);
        assert_eq!(hints.see(names(&["app/a"]), now + PACE), Some(vec!["app/a".to_owned()]));
    }

    #[test]
    fn news_that_come_fast_are_told_together() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        assert!(hints.see(names(&["app/a"]), now).is_some());
        assert_eq!(hints.see(names(&["app/a", "app/b"]), now), None);
        assert_eq!(hints.due(), Some(now + PACE));
        assert_eq!(hints.see(names(&["app/a", "app/b", "app/c"]), now), None);
        let told = hints.see(names(&["app/a", "app/c"]), now + PACE);
        assert_eq!(told, Some(vec!["app/c".to_owned()]), "the second is well again");
        assert_eq!(hints.due(), None);
    }

    #[test]
    fn what_another_host_has_told_is_probed_once_and_not_told_again() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        assert_eq!(hints.hear(vec!["app/a".into()], now), ["app/a"]);
        assert_eq!(hints.hear(vec!["app/a".into(), "app/b".into()], now), ["app/b"]);
        assert_eq!(hints.see(names(&["app/a"]), now), None);
        assert_eq!(hints.hear(vec!["app/a".into()], now + FRESH), ["app/a"]);
    }

    #[test]
    fn nobody_can_have_everything_probed_at_once_or_fill_the_store() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        let many = |from: usize| (from..from + 1000).map(|nth| format!("app/{nth}"));
        let probed: usize = (0..20).map(|nth| hints.hear(many(nth * 1000).collect(), now).len()).sum();
        assert_eq!(probed, MOST_PROBED);
        let told = Hints::default().see(many(0).collect(), now).unwrap();
        assert_eq!(told.len(), MOST);
        let hint = Hint::new("edge-1", told);
        assert_eq!(Hint::read(&hint.write()), Ok(hint));
        for garbage in
            [&b"{"[..], b"{}", b"{\"layout\":9,\"host\":\"\",\"failing\":[]}", &[b' '; LARGEST + 1]]
        {
            assert!(Hint::read(garbage).is_err());
        }
    }
}
