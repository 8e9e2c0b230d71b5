//! Connections to servers: those of HTTP/1 that wait for their next request, and those of HTTP/2, which requests share.
//! One pool per worker: no lock, no other thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;
use tokio::sync::Mutex;

use crate::{
    body::RequestBody,
    health::Health,
    upstream::sender::{Sender, Shared},
};

/// Idle connections are closed after this: shorter than the 5 s after which widespread servers (Node.js) close
/// theirs, since a request sent into a closing connection may be lost.
const LONGEST_IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept per server and worker.
const MOST_IDLE: usize = 256;

/// A connection of HTTP/2 costs its server little: it is kept for longer.
const LONGEST_UNUSED: Duration = Duration::from_secs(60);

/// Requests at a time over one connection of HTTP/2, if the server takes as many. More make another connection.
const MOST_STREAMS: usize = 100;

/// Connections of HTTP/2 per server and worker. When they are full, requests wait within them.
const MOST_SHARED: usize = 8;

/// Which connections may serve which requests: those of the same server under the same TLS settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey(pub u64);

#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>>>,
    shared: RefCell<HashMap<PoolKey, Multiplexed>>,
}

/// The connections of HTTP/2 to one server.
#[derive(Debug, Default)]
struct Multiplexed {
    connections: Vec<(Shared, Instant)>,
    /// Held while one is being opened: the others wait for it, instead of opening one each.
    opening: Rc<Mutex<()>>,
    /// The server was found to speak HTTP/1 where either would do: nobody need wait.
    speaks_http1: bool,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use, and where it belongs when its answer has been read to the end. Dropped instead of given
/// back, one of HTTP/1 closes.
#[derive(Debug)]
pub struct Lease {
    key: PoolKey,
    pool: Rc<Pool>,
    sender: Sender,
    health: Arc<Health>,
    keep: bool,
}

impl Pool {
    /// A connection that takes a request now; `http1`: one of HTTP/1.
    pub fn take(&self, key: PoolKey, http1: bool) -> Option<Sender> {
        let shared = if http1 { None } else { self.take_shared(key) };
        shared.or_else(|| self.take_idle(key).map(Sender::Http1))
    }

    /// A place on the connection of HTTP/2 that carries most and has room still.
    pub fn take_shared(&self, key: PoolKey) -> Option<Sender> {
        let mut shared = self.shared.borrow_mut();
        let connections = &mut shared.get_mut(&key)?.connections;
        connections.retain(|(connection, _)| !connection.is_closed());
        let full = connections.len() >= MOST_SHARED;
        let has_room = |connection: &Shared| connection.load() < connection.wanted().min(MOST_STREAMS);
        let (connection, used) = match connections.iter_mut().find(|(connection, _)| has_room(connection)) {
            None if full => connections.iter_mut().min_by_key(|(connection, _)| connection.load())?,
            found => found?,
        };
        *used = Instant::now();
        Some(Sender::Http2(connection.stream()))
    }

    /// Keeps a connection of HTTP/2 for all requests to come, and gives a place on it.
    pub fn share(&self, key: PoolKey, connection: Shared) -> Sender {
        let stream = connection.stream();
        let mut shared = self.shared.borrow_mut();
        shared.entry(key).or_default().connections.push((connection, Instant::now()));
        Sender::Http2(stream)
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

    /// An idle connection, the one used last first: it is the least likely to be closed by the server.
    fn take_idle(&self, key: PoolKey) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        while let Some(connection) = connections.pop() {
            if !connection.sender.is_closed() && connection.since.elapsed() < LONGEST_IDLE {
                return Some(connection.sender);
            }
        }
        None
    }

    fn put(&self, key: PoolKey, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < MOST_IDLE {
            connections.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes what has been idle for too long. Called every second or so.
    pub fn prune(&self) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < LONGEST_IDLE);
            !connections.is_empty()
        });
        self.shared.borrow_mut().retain(|_, known| {
            known.connections.retain(|(connection, used)| {
                !connection.is_closed() && (connection.load() > 0 || used.elapsed() < LONGEST_UNUSED)
            });
            !known.connections.is_empty() || known.speaks_http1 || Rc::strong_count(&known.opening) > 1
        });
    }

    /// Closes all that is idle: the worker is ending.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}

impl Lease {
    pub fn new(key: PoolKey, pool: Rc<Pool>, sender: Sender, health: Arc<Health>, keep: bool) -> Self {
        Self { key, pool, sender, health, keep }
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn give_back(self) {
        if let (Sender::Http1(sender), true) = (self.sender, self.keep) {
            self.pool.put(self.key, sender);
        }
    }
}
