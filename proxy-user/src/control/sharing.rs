//! What this host and the others of its fleet tell each other: takes up what others have switched, and tells them what operators
//! switch here. The rules are in [`crate::fleet::shared`]; what is switched belongs to its owners, who keep it on the disk.

mod hints;
mod keys;
mod switches;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    apply::Fleet, blocks::Blocking, drains::Draining, guard::Guard, maintenance::Maintaining, order::Verb,
    splits::Splits,
};
use crate::{
    config::model::{Config, ProviderSource},
    fleet::{
        seal::FleetKeys,
        shared::{
            HINTS, KEYS, SWITCHES,
            board::{Board, Counts, Standing},
            link::{Link, News, Value},
            switch::Switches,
        },
    },
    journal::JOURNAL,
    store::address::StoreAddress,
};
use hints::Hinting;
use keys::Keying;
use switches::Switching;
pub use switches::switches;

/// What could not be taken up is tried again this often.
const AGAIN: Duration = Duration::from_secs(5);

/// That something can't be understood is told so often at most.
const SILENT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Sharing {
    board: Arc<Board>,
    /// `None`: this host is in no fleet.
    part: Option<Part>,
    /// The snapshot that was looked at last.
    generation: u64,
}

#[derive(Debug)]
struct Part {
    place: Place,
    link: Link,
    standing: Standing,
    switching: Switching,
    hinting: Hinting,
    keying: Keying,
    again: Instant,
    /// The last event of the journal that was seen.
    seen: u64,
    /// When was told last that something can't be understood.
    unclear_told: Option<Instant>,
}

/// Who this host is, and where its fleet's store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: Arc<str>,
    address: StoreAddress,
    keys: Option<Arc<FleetKeys>>,
    state: PathBuf,
}

/// Those to whom switches belong.
pub struct Owners<'a> {
    pub blocking: &'a mut Blocking,
    pub draining: &'a mut Draining,
    pub maintaining: &'a mut Maintaining,
    pub splits: &'a mut Splits,
}

/// How something was ordered.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// For this host alone.
    pub here: bool,
    pub force: bool,
}

/// Something to be looked at.
#[derive(Debug)]
pub enum Event {
    News(News),
    /// Something was written into the journal.
    Happened,
    /// It is time.
    Due,
}

// === impl Sharing ===

impl Sharing {
    pub fn new(board: Arc<Board>) -> Self {
        Self { board, part: None, generation: 0 }
    }

    /// Follows the configuration, and tells what judges have decided. Costs next to nothing where nothing has changed.
    pub fn keep_up(&mut self, fleet: &Fleet) {
        let running = fleet.running().load_full();
        if running.generation != self.generation {
            self.generation = running.generation;
            self.follow(&running.config);
        }
        if let Some(part) = &mut self.part {
            part.switching.judges_have_decided(&running.splits.all(), &part.link, &self.board);
            part.keying.follow(&running);
        }
    }

    fn follow(&mut self, config: &Config) {
        let place = Place::of(config);
        if self.part.as_ref().map(|part| &part.place) == place.as_ref() {
            return;
        }
        self.part = place.map(|place| Part {
            link: Link::start(place.address.clone()),
            standing: Standing { away: Some("it was not asked yet".to_owned()), ..Standing::default() },
            switching: Switching::at_start(&place.host, &place.state, &place.address.prefix),
            hinting: Hinting::new(&place.host),
            keying: Keying::new(&place),
            again: Instant::now(),
            seen: JOURNAL.last(),
            unclear_told: None,
            place,
        });
        self.board.stand(self.part.as_ref().map(|part| part.standing.clone()));
        if let Some(part) = &self.part {
            part.switching.show(&self.board);
        }
    }

    /// Whether there is a fleet to tell anything to.
    pub fn is_on(&self) -> bool {
        self.part.is_some()
    }

    /// The next thing to be looked at. Safe to cancel.
    pub async fn next(&mut self) -> Event {
        let Some(part) = &mut self.part else { return std::future::pending().await };
        let due = part.due();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = part.link.news() => Event::News(news),
            () = JOURNAL.more_than(part.seen) => Event::Happened,
            () = due => Event::Due,
        }
    }

    pub async fn look(&mut self, event: Event, owners: Owners<'_>, guard: &Guard, fleet: &mut Fleet) {
        let Some(part) = &mut self.part else { return };
        let snapshot = fleet.running().load_full();
        match event {
            Event::News(first) => {
                let mut batch = vec![first];
                batch.extend(std::iter::from_fn(|| part.link.more()).take(1000));
                part.hear(batch, &self.board, owners, guard, fleet).await;
            }
            Event::Happened => {
                part.seen = JOURNAL.last();
                part.hinting.look(&snapshot, &part.link, &self.board);
            }
            Event::Due => {
                part.hinting.look(&snapshot, &part.link, &self.board);
                part.keying.write(&snapshot, &part.link);
                if part.again <= Instant::now() {
                    part.again = Instant::now() + AGAIN;
                    part.switching.try_again(owners, guard, fleet, &self.board).await;
                }
            }
        }
    }

    /// An operator has switched something here: what the order has changed. Says what the others know of it, if anything has changed.
    pub fn ordered(&mut self, before: &Switches, now: &Switches, manner: Manner) -> Option<&'static str> {
        let part = self.part.as_mut()?;
        part.switching.ordered(before, now, manner, &part.link, &self.board)
    }
}

// === impl Part ===

impl Part {
    fn due(&self) -> Option<Instant> {
        let again = self.switching.is_waiting().then_some(self.again);
        again.into_iter().chain(self.hinting.due()).chain(self.keying.due()).min()
    }

    async fn hear(
        &mut self,
        batch: Vec<News>,
        board: &Board,
        owners: Owners<'_>,
        guard: &Guard,
        fleet: &mut Fleet,
    ) {
        let before = self.standing.clone();
        let mut unclear = Unclear::default();
        let on = switches(&owners, &fleet.running().load());
        for news in batch {
            match news {
                News::Whole { cluster, at, found } => {
                    (self.standing.away, self.standing.forbidden) = (None, None);
                    let (mut said, mut others) = (Vec::new(), Vec::new());
                    for (key, value) in found {
                        match key.strip_prefix(SWITCHES) {
                            Some(name) => said.push((name.to_owned(), value)),
                            None => others.push((key, value)),
                        }
                    }
                    self.switching.whole(cluster, at, said, &on, &mut unclear);
                    self.keying.begin(&others);
                    for (key, value) in others {
                        self.changed(&key, Some(value), board, fleet, &mut unclear);
                    }
                }
                News::Changed { key, value } => self.changed(&key, value, board, fleet, &mut unclear),
                News::Forbidden { why } => {
                    tracing::warn!(
                        "{why}: what is switched here stays here (docs/fleet.md has what to grant)"
                    );
                    self.standing.forbidden = Some(why);
                }
                News::Away { why } => {
                    self.switching.away();
                    self.standing.away = Some(why);
                }
            }
        }
        self.unclear_told = unclear.tell(self.unclear_told, board);
        self.switching.settle(&self.link, owners, guard, fleet, board).await;
        self.keying.write(&fleet.running().load_full(), &self.link);
        self.keying.put_into_force(fleet).await;
        self.standing.keys = self.keying.told();
        if self.standing != before {
            board.stand(Some(self.standing.clone()));
        }
    }

    fn changed(
        &mut self,
        key: &str,
        value: Option<Value>,
        board: &Board,
        fleet: &Fleet,
        unclear: &mut Unclear,
    ) {
        if let Some(name) = key.strip_prefix(SWITCHES) {
            self.switching.changed(name, value, unclear);
        } else if key.starts_with(KEYS) {
            self.keying.changed(key, value);
        } else if let (Some(_), Some(value)) = (key.strip_prefix(HINTS), value) {
            self.hinting.hear(key, &value.bytes, &fleet.running().load(), board, unclear);
        }
        // What else is there is of a weir that knows more.
    }
}

// === impl Place ===

impl Place {
    fn of(config: &Config) -> Option<Self> {
        let fleet = config.fleet.as_ref()?;
        let provider = config.providers.iter().find(|provider| provider.name == fleet.store)?;
        let ProviderSource::Etcd(etcd) = &provider.source else { return None };
        let (host, state) = (fleet.host.clone(), config.state.dir.clone());
        Some(Self { host, address: etcd.address.clone(), keys: fleet.keys.clone(), state })
    }
}

// === impl Manner ===

impl Manner {
    /// `None`: the order switches nothing that others would want to know.
    pub fn of(verb: &Verb) -> Option<Self> {
        let (here, force) = match verb {
            Verb::Block(order) => (order.here, order.force),
            Verb::Unblock(order) => (order.here, false),
            Verb::Split(order) => (order.here, false),
            Verb::Maintain(order) => (order.here, false),
            Verb::EndMaintenance(order) => (order.here, false),
            Verb::Drain(order) => (order.here, order.force),
            Verb::Undrain(order) => (order.here, false),
            _ => return None,
        };
        Some(Self { here, force })
    }
}

/// Values that can't be understood: one line for all that come together.
#[derive(Debug, Default)]
struct Unclear {
    first: Option<(String, String)>,
    count: usize,
}

impl Unclear {
    fn add(&mut self, key: &str, why: String) {
        self.count += 1;
        self.first.get_or_insert_with(|| (key.to_owned(), why));
    }

    /// Says when it was told last: whoever writes garbage all the time doesn't fill the log.
    fn tell(self, before: Option<Instant>, board: &Board) -> Option<Instant> {
        let Some((key, why)) = self.first else { return before };
        Counts::add(&board.counts.passed_over, self.count);
        if before.is_some_and(|before| before.elapsed() < SILENT) {
            return before;
        }
        // Whoever writes there may write anything, also into a log.
        let key: String = key.chars().take(100).collect();
        tracing::warn!(
            "{} below `shared/` in the store can't be understood and is passed over: {key:?}: {why}",
            if self.count == 1 { "a value".to_owned() } else { format!("{} values", self.count) }
        );
        Some(Instant::now())
    }
}
