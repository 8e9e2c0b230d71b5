//! Who has a session. Where there are so many that each new one has to cost another its own, the choice is made among a few that are
//! drawn by lot: nearly as good as looking at all, and as cheap with many as with few.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// One socket has no more than these: each is a descriptor and a port of the host's.
const MOST: usize = 8192;
/// Among so many, drawn by lot.
const LOOKED_AT: usize = 64;
/// Who is left alone all the same: whoever has begun just now, and, for another client's sake, whoever was answered not long ago.
const NEW: Duration = Duration::from_secs(1);
const LIVELY: Duration = Duration::from_secs(60);

/// A client, and where it sends to if that isn't the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub client: SocketAddr,
    pub local: Option<IpAddr>,
}

#[derive(Debug)]
pub struct Sessions<S> {
    by_key: HashMap<Key, usize>,
    all: Vec<(Key, S)>,
}

impl<S> Default for Sessions<S> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), all: Vec::new() }
    }
}

impl<S: Clone> Sessions<S> {
    pub fn find(&self, key: &Key) -> Option<&S> {
        self.by_key.get(key).map(|index| &self.all[*index].1)
    }

    /// Nobody has it yet.
    pub fn add(&mut self, key: Key, session: S) {
        self.by_key.insert(key, self.all.len());
        self.all.push((key, session));
    }

    /// If it is the one that is meant: another may have taken its place.
    pub fn remove(&mut self, key: &Key, is_meant: impl FnOnce(&S) -> bool) {
        let Some(&index) = self.by_key.get(key) else { return };
        if !is_meant(&self.all[index].1) {
            return;
        }
        self.by_key.remove(key);
        self.all.swap_remove(index);
        if let Some((moved, _)) = self.all.get(index) {
            self.by_key.insert(*moved, index);
        }
    }

    /// Whether a new one has to cost another its place.
    pub fn are_many(&self) -> bool {
        self.all.len() >= MOST
    }

    /// Whom it costs its place: among all, or among those `of` one client. `look` says whether it was never answered, and for how
    /// long it has been silent.
    pub fn to_give_way(&self, of: Option<IpAddr>, look: impl Fn(&S) -> (bool, Duration)) -> Option<S> {
        if self.all.is_empty() {
            return None;
        }
        let drawn = (0..LOOKED_AT).map(|_| &self.all[fastrand::usize(..self.all.len())]);
        let may = drawn.filter(|(key, session)| {
            let (unanswered, silent) = look(session);
            match of {
                Some(client) => key.client.ip() == client && silent > NEW,
                None => silent > if unanswered { NEW } else { LIVELY },
            }
        });
        may.map(|(_, session)| session).max_by_key(|session| look(session)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        Key { client: SocketAddr::new([192, 0, 2, 1].into(), port), local: None }
    }

    #[test]
    fn who_is_removed_leaves_the_others_findable() {
        let mut sessions = Sessions::default();
        (1..=4).for_each(|port| sessions.add(key(port), port));
        sessions.remove(&key(2), |_| false);
        assert_eq!(sessions.find(&key(2)), Some(&2), "it was another one that was meant");
        sessions.remove(&key(2), |_| true);
        sessions.remove(&key(4), |_| true);
        let found: Vec<_> = (1..=4).map(|port| sessions.find(&key(port)).copied()).collect();
        assert_eq!(found, [Some(1), None, Some(3), None]);
    }

    #[test]
    fn the_unanswered_give_way_first_and_whoever_is_in_use_never() {
        let mut sessions = Sessions::default();
        assert!(sessions.to_give_way(None, |_: &u16| (true, LIVELY)).is_none(), "there is nobody");
        (0..100).for_each(|port| sessions.add(key(port), port));
        assert_eq!(sessions.to_give_way(None, |_| (true, NEW)), None, "all have begun just now");
        assert_eq!(sessions.to_give_way(None, |_| (false, LIVELY)), None, "all are in use");
        let seconds = Duration::from_secs;
        // One half was never answered: 64 lots don't miss it.
        let look =
            |port: &u16| if port.is_multiple_of(2) { (true, seconds(2)) } else { (false, seconds(900)) };
        let gone = sessions.to_give_way(None, look);
        assert!(gone.is_some_and(|port| port.is_multiple_of(2)), "{gone:?}");
    }

    #[test]
    fn a_client_with_too_many_pays_with_its_own() {
        let mut sessions = Sessions::default();
        (0..100).for_each(|port| sessions.add(key(port), port));
        let mine = IpAddr::from([192, 0, 2, 1]);
        let answered = |_: &u16| (false, NEW * 2);
        assert!(sessions.to_give_way(Some(mine), answered).is_some());
        assert_eq!(sessions.to_give_way(Some([192, 0, 2, 2].into()), answered), None);
        assert_eq!(sessions.to_give_way(None, answered), None, "no other client is worth one that is in use");
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut sessions = Sessions::default();
        (0..MOST as u16).for_each(|port| {
            assert!(!sessions.are_many());
            sessions.add(key(port), port);
        });
        assert!(sessions.are_many());
    }
}
