//! Connections to servers: those of HTTP/1 that wait for their next request, and those of HTTP/2, which requests share.
//! One pool per worker: no lock, no other thread.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use tokio::sync::Mutex;

use crate::{
    clock::Moment,
    config::model::Pool as Settings,
    health::Health,
    service::UnderWay,
    upstream::{
        carrier::Carrier,
        http1::Connection,
        http2::{Shared, Stream},
    },
};

/// A connection of HTTP/2 costs its server little: it is kept for longer, in milliseconds.
const LONGEST_UNUSED: u64 = 60_000;

/// Requests at a time over one connection of HTTP/2, if the server takes as many. More make another connection.
const MOST_STREAMS: usize = 100;

/// Connections of HTTP/2 per server and worker. When they are full, requests wait within them.
const MOST_SHARED: usize = 8;

/// Which connections may serve which requests: those of the same server under the same TLS settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey(pub u64);

/// Nobody outside chooses the keys: no need for a hash that stands up to attackers.
type Keyed<T> = HashMap<PoolKey, T, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Keyed<Vec<Idle>>>,
    shared: RefCell<Keyed<Multiplexed>>,
    /// Connections to these are being opened ahead.
    warming: RefCell<HashSet<PoolKey>>,
}

/// The connections of HTTP/2 to one server.
#[derive(Debug, Default)]
struct Multiplexed {
    connections: Vec<(Shared, Moment)>,
    /// Held while one is being opened: the others wait for it, instead of opening one each.
    opening: Rc<Mutex<()>>,
    /// The server was found to speak HTTP/1 where either would do: nobody need wait.
    speaks_http1: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    until: Moment,
}

/// A connection in use, and where it belongs when its answer has been read to the end. Dropped instead of given
/// back, it closes; of HTTP/2, that is its stream.
#[derive(Debug)]
pub struct Lease {
    key: PoolKey,
    pool: Rc<Pool>,
    pub carrier: Carrier,
    health: Arc<Health>,
    keep: Option<Settings>,
    /// As long as the answer goes on, its server has the request under way.
    under_way: Option<UnderWay>,
}

impl Pool {
    /// An idle connection, the one used last first: it is the least likely to be closed by the server.
    pub fn take(&self, key: PoolKey) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        while let Some(mut idle) = connections.pop() {
            if idle.is_fit(Moment::recent()) {
                return Some(idle.connection);
            }
        }
        None
    }

    /// A place on the connection of HTTP/2 that carries most and has room still.
    pub fn take_shared(&self, key: PoolKey) -> Option<Stream> {
        let mut shared = self.shared.borrow_mut();
        let connections = &mut shared.get_mut(&key)?.connections;
        connections.retain(|(connection, _)| !connection.is_closed());
        let full = connections.len() >= MOST_SHARED;
        let has_room = |connection: &Shared| connection.load() < connection.wanted().min(MOST_STREAMS);
        let (connection, used) = match connections.iter_mut().find(|(connection, _)| has_room(connection)) {
            None if full => connections.iter_mut().min_by_key(|(connection, _)| connection.load())?,
            found => found?,
        };
        *used = Moment::recent();
        Some(connection.stream())
    }

    /// Keeps a connection of HTTP/2 for all requests to come, and gives a place on it.
    pub fn share(&self, key: PoolKey, connection: Shared) -> Stream {
        let stream = connection.stream();
        let mut shared = self.shared.borrow_mut();
        shared.entry(key).or_default().connections.push((connection, Moment::recent()));
        stream
    }

    /// Where to wait while somebody else opens a connection that many will share. `None` where there is no sense in it.
    pub fn opening(&self, key: PoolKey) -> Option<Rc<Mutex<()>>> {
        let mut shared = self.shared.borrow_mut();
        let known = shared.entry(key).or_default();
        (!known.speaks_http1).then(|| known.opening.clone())
    }

    /// Either would do, and the server chose HTTP/1.
    pub fn speaks_http1(&self, key: PoolKey) {
        self.shared.borrow_mut().entry(key).or_default().speaks_http1 = true;
    }

    /// Keeps a connection of HTTP/1, if there are not enough already.
    pub fn put(&self, key: PoolKey, connection: Box<Connection>, settings: Settings) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < settings.idle {
            let until = Moment::recent().after(settings.idle_timeout);
            connections.push(Idle { connection, until });
        }
    }

    /// How many requests would find a connection, as far as is known: over HTTP/2 any number.
    pub fn ready(&self, key: PoolKey) -> usize {
        let is_open = |known: &Multiplexed| known.connections.iter().any(|(one, _)| !one.is_closed());
        if self.shared.borrow().get(&key).is_some_and(is_open) {
            return usize::MAX;
        }
        self.idle.borrow().get(&key).map_or(0, Vec::len)
    }

    /// Whether nobody else opens connections ahead, to this server.
    pub fn begins_warming(&self, key: PoolKey) -> bool {
        self.warming.borrow_mut().insert(key)
    }

    pub fn ends_warming(&self, key: PoolKey) {
        self.warming.borrow_mut().remove(&key);
    }

    /// Closes what has been idle for too long, or was closed by the server. Called every second or so.
    pub fn prune(&self) {
        let now = Moment::recent();
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain_mut(|idle| idle.is_fit(now));
            !connections.is_empty()
        });
        self.shared.borrow_mut().retain(|_, known| {
            known.connections.retain(|(connection, used)| {
                !connection.is_closed() && (connection.load() > 0 || now.since(*used) < LONGEST_UNUSED)
            });
            // What is learnt of a server is learnt anew when nothing goes there for a while.
            !known.connections.is_empty() || Rc::strong_count(&known.opening) > 1
        });
    }

    /// Closes what is idle of one server: it is drained. What is in use ends with its requests.
    pub fn leave(&self, key: PoolKey) {
        self.idle.borrow_mut().remove(&key);
        if let Some(known) = self.shared.borrow_mut().get_mut(&key) {
            known.connections.retain(|(connection, _)| connection.load() > 0);
        }
    }

    /// Closes all that is idle: the worker is ending.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}

impl Idle {
    fn is_fit(&mut self, now: Moment) -> bool {
        now < self.until && self.connection.is_quiet()
    }
}

impl Lease {
    /// `keep`: somebody else may have the connection afterwards, and for how long.
    pub fn new(
        key: PoolKey,
        pool: Rc<Pool>,
        carrier: Carrier,
        health: Arc<Health>,
        keep: Option<Settings>,
    ) -> Self {
        Self { key, pool, carrier, health, keep, under_way: None }
    }

    /// Counts for the server until the lease ends.
    pub fn counts(mut self, under_way: UnderWay) -> Self {
        self.under_way = Some(under_way);
        self
    }

    /// Something came from the server. When, is known to a tick: a body comes in many pieces.
    pub fn heard(&self) {
        self.health.heard(Moment::recent());
    }

    /// For good: it won't be given back, and what it counts for goes with it.
    pub fn into_carrier(self) -> (Carrier, Option<UnderWay>) {
        (self.carrier, self.under_way)
    }

    /// After an answer that was read to its end: the next request may have the connection, if it is good for one.
    pub fn give_back(self) {
        if let (Carrier::Http1(connection), Some(settings)) = (self.carrier, self.keep)
            && connection.is_reusable()
            && !self.health.is_draining()
        {
            self.pool.put(self.key, connection, settings);
        }
    }
}
