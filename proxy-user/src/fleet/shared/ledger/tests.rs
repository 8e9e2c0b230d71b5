//! The rules one by one, and then many hosts at once that are cut off, come back, and lose their store.

use proptest::prelude::*;

use super::*;
use crate::fleet::shared::switch::tests::block;

const NAMES: [&str; 3] = ["blocks/192.0.2.0/24", "blocks/198.51.100.0/24", "blocks/203.0.113.0/24"];

fn switch(name: &str, why: &str) -> Switch {
    block(name.trim_start_matches("blocks/"), why)
}

fn said(host: &str, at: i64, switch: Option<Switch>) -> Said {
    Said::new(host, at, false, switch)
}

fn found(revision: i64, said: Said) -> Found {
    Found { revision, said: Some(said) }
}

fn connected(host: &str) -> Ledger {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.whole(1, 5, &BTreeMap::new(), &Switches::new(), host), []);
    ledger
}

fn back(ledger: &mut Ledger, at: i64, name: &str, there: Option<Found>) -> Vec<Step> {
    let all = there.map(|there| (name.to_owned(), there)).into_iter().collect();
    ledger.whole(1, at, &all, &Switches::new(), "a")
}

#[test]
fn what_is_said_while_the_store_is_there_is_written_and_then_known() {
    let (mut ledger, name) = (connected("a"), NAMES[0]);
    let word = said("a", 1, Some(switch(name, "x")));
    let step = ledger.said(name, word.clone());
    assert_eq!(step, Some(Step::Write { name: name.into(), said: word.clone(), only_at: None }));
    assert_eq!((ledger.unsaid(), ledger.origin(name)), (1, Some("a")));
    assert_eq!(ledger.changed(name, Some(&found(6, word))), None, "that is its own");
    assert_eq!(ledger.unsaid(), 0);
    // Somebody else's is later, and holds.
    let other = said("b", 2, None);
    let Some(Step::Take(taken)) = ledger.changed(name, Some(&found(7, other))) else { panic!() };
    assert_eq!((taken.switch, taken.host.as_deref()), (None, Some("b")));
    assert_eq!(ledger.changed(name, None), None, "its note has gone, and it was off before");
}

#[test]
fn what_others_say_while_the_own_word_is_on_its_way_comes_before_it() {
    let (mut ledger, name) = (connected("a"), NAMES[0]);
    let mine = said("a", 1, Some(switch(name, "mine")));
    ledger.said(name, mine.clone());
    assert_eq!(ledger.changed(name, Some(&found(6, said("b", 1, Some(switch(name, "theirs")))))), None);
    assert_eq!(ledger.changed(name, Some(&found(7, mine))), None);
    assert_eq!(ledger.origin(name), Some("a"));
}

#[test]
fn what_was_said_alone_is_written_unless_somebody_else_has_spoken() {
    let name = NAMES[0];
    let mine = said("a", 1, Some(switch(name, "mine")));
    let theirs = said("b", 1, Some(switch(name, "theirs")));
    let alone = || {
        let mut ledger = connected("a");
        ledger.changed(name, Some(&found(6, said("b", 0, Some(switch(name, "before"))))));
        ledger.away();
        assert_eq!(ledger.said(name, mine.clone()), None, "nobody is there to be told");
        ledger
    };
    // Nobody has.
    let same = found(6, said("b", 0, Some(switch(name, "before"))));
    let write = |at| vec![Step::Write { name: name.into(), said: mine.clone(), only_at: Some(at) }];
    assert_eq!(back(&mut alone(), 6, name, Some(same)), write(6));
    // It has ended meanwhile.
    assert_eq!(back(&mut alone(), 9, name, None), write(0));
    // The own word has come there, but that was not heard.
    let mut ledger = alone();
    assert_eq!(back(&mut ledger, 9, name, Some(found(9, mine.clone()))), []);
    assert_eq!(ledger.unsaid(), 0);
    // Something is there that nobody can understand.
    assert_eq!(back(&mut alone(), 9, name, Some(Found { revision: 9, said: None })), write(9));
    // Somebody has: theirs holds.
    let mut ledger = alone();
    let steps = back(&mut ledger, 9, name, Some(found(9, theirs)));
    let [Step::GaveWay { host, .. }, Step::Take(taken)] = &*steps else { panic!("{steps:?}") };
    assert_eq!((host.as_deref(), taken.host.as_deref()), (Some("b"), Some("b")));
    assert_eq!((ledger.unsaid(), ledger.origin(name)), (0, Some("b")));
}

#[test]
fn what_has_gone_from_the_store_is_off_but_for_what_nobody_else_knew() {
    let mut ledger = connected("a");
    ledger.changed(NAMES[0], Some(&found(6, said("b", 0, Some(switch(NAMES[0], ""))))));
    ledger.said_here(NAMES[1]);
    ledger.away();
    let steps = back(&mut ledger, 9, NAMES[2], None);
    let [Step::Take(Word { name, switch: None, host: None, .. })] = &*steps else { panic!("{steps:?}") };
    assert_eq!(name, NAMES[0]);
    assert_eq!(ledger.said(NAMES[2], said("a", 1, None)), None, "to take back what nobody knows is no news");
}

#[test]
fn a_store_that_has_lost_what_it_had_is_given_what_the_hosts_know() {
    let name = NAMES[0];
    for (cluster, at) in [(1, 2), (2, 100)] {
        let mut ledger = connected("a");
        ledger.changed(name, Some(&found(6, said("b", 0, Some(switch(name, "x"))))));
        ledger.away();
        let on = Switches::from([(name.to_owned(), switch(name, "x"))]);
        let steps = ledger.whole(cluster, at, &BTreeMap::new(), &on, "a");
        let [Step::Write { said, only_at: Some(0), .. }] = &*steps else { panic!("{steps:?}") };
        assert_eq!((&*said.host, &said.switch), ("b", &Some(switch(name, "x"))));
    }
}

#[test]
fn what_is_for_this_host_alone_stays_until_somebody_says_something_for_all() {
    let (mut ledger, name) = (connected("a"), NAMES[0]);
    let theirs = found(6, said("b", 0, Some(switch(name, "x"))));
    ledger.changed(name, Some(&theirs));
    ledger.said_here(name);
    assert!(ledger.is_here_only(name) && ledger.origin(name).is_none());
    assert_eq!(back(&mut ledger, 8, name, Some(theirs)), [], "they have said nothing new");
    assert!(matches!(ledger.changed(name, Some(&found(9, said("b", 1, None)))), Some(Step::Take(_))));
    assert!(!ledger.is_here_only(name));
}

#[test]
fn a_store_full_of_names_is_not_taken_in_whole() {
    let all = (0..MOST as i64 + 10)
        .map(|nth| {
            let name = format!("blocks/2001:db8::{nth:x}/128");
            let one = found(nth + 1, said("b", nth, Some(switch(&name, ""))));
            (name, one)
        })
        .collect();
    let mut ledger = Ledger::default();
    assert_eq!(ledger.whole(1, 99_999, &all, &Switches::new(), "a").len(), MOST);
    assert_eq!(
        ledger.said("blocks/192.0.2.0/24", said("a", 1, Some(switch("blocks/192.0.2.0/24", "")))),
        None
    );
    assert!(ledger.is_here_only("blocks/192.0.2.0/24"));
}

/// A store, as hosts see it.
#[derive(Default)]
struct Store {
    cluster: u64,
    revision: i64,
    there: BTreeMap<String, Found>,
    /// Since it was set up.
    events: Vec<(String, Found)>,
}

struct Host {
    name: String,
    ledger: Ledger,
    on: Switches,
    /// What it has to write, and how many events it has heard.
    writes: Vec<Step>,
    heard: usize,
}

#[derive(Debug, Clone)]
enum Event {
    Say(usize, usize, bool),
    Cut(usize),
    Join(usize),
    Write(usize),
    Hear(usize),
    /// The store is lost, and set up anew.
    Lose,
}

impl Host {
    fn follow(&mut self, step: Step) {
        match step {
            Step::Take(Word { name, switch: Some(switch), .. }) => drop(self.on.insert(name, switch)),
            Step::Take(Word { name, .. }) => drop(self.on.remove(&name)),
            write @ Step::Write { .. } => self.writes.push(write),
            Step::GaveWay { .. } => {}
        }
    }

    fn join(&mut self, store: &Store) {
        if self.ledger.is_connected() {
            return;
        }
        self.heard = store.events.len();
        let steps =
            self.ledger.whole(store.cluster, store.revision, &store.there, &self.on, &self.name.clone());
        steps.into_iter().for_each(|step| self.follow(step));
    }

    fn cut(&mut self) {
        self.ledger.away();
        self.writes.clear();
    }

    fn write(&mut self, store: &mut Store) {
        if self.writes.is_empty() {
            return;
        }
        let Step::Write { name, said, only_at } = self.writes.remove(0) else { return };
        let at = store.there.get(&name).map_or(0, |found| found.revision);
        if only_at.is_some_and(|only_at| only_at != at) {
            self.cut();
            return;
        }
        store.revision += 1;
        let found = Found { revision: store.revision, said: Some(said) };
        store.there.insert(name.clone(), found.clone());
        store.events.push((name, found));
    }

    fn hear(&mut self, store: &Store) {
        if !self.ledger.is_connected() {
            return;
        }
        if let Some((name, found)) = store.events.get(self.heard) {
            self.heard += 1;
            if let Some(step) = self.ledger.changed(name, Some(found)) {
                self.follow(step);
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..3usize;
    prop_oneof![
        4 => (host.clone(), 0..NAMES.len(), any::<bool>()).prop_map(|(host, name, on)| Event::Say(host, name, on)),
        2 => host.clone().prop_map(Event::Cut),
        2 => host.clone().prop_map(Event::Join),
        4 => host.clone().prop_map(Event::Write),
        4 => host.prop_map(Event::Hear),
        1 => Just(Event::Lose),
    ]
}

proptest! {
    /// Whatever happens in between: when all are there and have heard everything, all have on what the store has on.
    #[test]
    fn hosts_agree_when_all_is_said(events in prop::collection::vec(event(), 0..80)) {
        let mut store = Store { cluster: 1, revision: 1, ..Store::default() };
        let mut hosts: Vec<_> = ["a", "b", "c"].map(|name| Host {
            name: name.into(), ledger: Ledger::default(), on: Switches::new(), writes: Vec::new(), heard: 0,
        }).into();
        for (at, event) in events.iter().enumerate() {
            match *event {
                Event::Say(host, name, on) => {
                    let (host, name) = (&mut hosts[host], NAMES[name]);
                    let switch = on.then(|| switch(name, &format!("{at}")));
                    match &switch {
                        Some(switch) => drop(host.on.insert(name.into(), switch.clone())),
                        None => drop(host.on.remove(name)),
                    }
                    if let Some(step) = host.ledger.said(name, said(&host.name, at as i64, switch)) {
                        host.follow(step);
                    }
                }
                Event::Cut(host) => hosts[host].cut(),
                Event::Join(host) => hosts[host].join(&store),
                Event::Write(host) => hosts[host].write(&mut store),
                Event::Hear(host) => hosts[host].hear(&store),
                Event::Lose => {
                    store = Store { cluster: store.cluster + 1, revision: 1, ..Store::default() };
                    hosts.iter_mut().for_each(Host::cut);
                }
            }
        }
        for _ in 0..200 {
            for host in &mut hosts {
                host.join(&store);
                host.write(&mut store);
                host.hear(&store);
            }
        }
        let there: Switches = store.there.iter().filter_map(|(name, found)| {
            Some((name.clone(), found.said.clone()?.switch?))
        }).collect();
        for host in &hosts {
            prop_assert_eq!(host.ledger.unsaid(), 0);
            prop_assert_eq!(&host.on, &there, "{}", host.name);
        }
    }
}
