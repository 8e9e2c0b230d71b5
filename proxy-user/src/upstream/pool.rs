//! Connections to servers that wait for their next request. One pool per worker: no lock, no other thread.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use crate::{clock::Moment, health::Health, upstream::http1::Connection};

/// Idle connections are closed after so many milliseconds: shorter than the 5 s after which widespread servers (Node.js) close
/// theirs, since a request sent into a closing connection may be lost.
const LONGEST_IDLE: u64 = 4_000;

/// Idle connections kept per server and worker.
const MOST_IDLE: usize = 256;

/// Which connections may serve which requests: those of the same server under the same TLS settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey(pub u64);

#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Moment,
}

/// A connection in use, and where it belongs when its answer has been read to the end. Dropped instead of given
/// back, it closes.
#[derive(Debug)]
pub struct Lease {
    key: PoolKey,
    pool: Rc<Pool>,
    connection: Box<Connection>,
    health: Arc<Health>,
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

    fn put(&self, key: PoolKey, connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < MOST_IDLE {
            connections.push(Idle { connection, since: Moment::recent() });
        }
    }

    /// Closes what has been idle for too long, or was closed by the server. Called every second or so.
    pub fn prune(&self) {
        let now = Moment::recent();
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain_mut(|idle| idle.is_fit(now));
            !connections.is_empty()
        });
    }

    /// Closes all that is idle: the worker is ending.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

impl Idle {
    fn is_fit(&mut self, now: Moment) -> bool {
        now.since(self.since) < LONGEST_IDLE && self.connection.is_quiet()
    }
}

impl Lease {
    pub fn new(key: PoolKey, pool: Rc<Pool>, connection: Box<Connection>, health: Arc<Health>) -> Self {
        Self { key, pool, connection, health }
    }

    /// Something came from the server. When, is known to a tick: a body comes in many pieces.
    pub fn heard(&self) {
        self.health.heard(Moment::recent());
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// For good: it won't be given back.
    pub fn into_connection(self) -> Box<Connection> {
        self.connection
    }

    /// After an answer that was read to its end: the next request may have the connection, if it is good for one.
    pub fn give_back(self) {
        if self.connection.is_reusable() {
            self.pool.put(self.key, self.connection);
        }
    }
}
