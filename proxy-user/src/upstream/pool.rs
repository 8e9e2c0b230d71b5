//! Connections to servers that wait for their next request. One pool per worker: no lock, no other thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use crate::{body::RequestBody, health::Health};

/// Idle connections are closed after this: shorter than the 5 s after which widespread servers (Node.js) close
/// theirs, since a request sent into a closing connection may be lost.
const LONGEST_IDLE: Duration = Duration::from_secs(4);

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
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use, and where it belongs when its answer has been read to the end. Dropped instead of given
/// back, it closes.
#[derive(Debug)]
pub struct Lease {
    key: PoolKey,
    pool: Rc<Pool>,
    sender: SendRequest<RequestBody>,
    health: Arc<Health>,
}

impl Pool {
    /// An idle connection, the one used last first: it is the least likely to be closed by the server.
    pub fn take(&self, key: PoolKey) -> Option<SendRequest<RequestBody>> {
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
    }

    /// Closes all that is idle: the worker is ending.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

impl Lease {
    pub fn new(key: PoolKey, pool: Rc<Pool>, sender: SendRequest<RequestBody>, health: Arc<Health>) -> Self {
        Self { key, pool, sender, health }
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn give_back(self) {
        self.pool.put(self.key, self.sender);
    }
}
