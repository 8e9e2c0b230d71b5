//! Why a page stands in a server's place. The same name is in the access log, in the status and in the docs.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No server answered.
    AllDown,
    /// One did, with a status that a page is written for.
    Status,
    /// Somebody wants it so for a while.
    Maintenance,
}

/// How often each occurred.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; Why::ALL.len()]);

impl Why {
    pub const ALL: [Self; 3] = [Self::AllDown, Self::Status, Self::Maintenance];

    pub fn name(self) -> &'static str {
        match self {
            Self::AllDown => "all_down",
            Self::Status => "status",
            Self::Maintenance => "maintenance",
        }
    }
}

impl Tally {
    pub fn count(&self, why: Why) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, by name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        Why::ALL.into_iter().map(Why::name).zip(&self.0)
    }

    /// Those that occurred.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        let each = Why::ALL.map(|why| (why.name().to_owned(), self.0[why as usize].load(Ordering::Relaxed)));
        each.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let tally = Tally::default();
        for (nth, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, nth);
            tally.count(why);
        }
        assert_eq!(tally.counted().into_values().collect::<Vec<_>>(), [1, 1, 1]);
    }
}
