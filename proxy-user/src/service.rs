//! A service as it runs: its servers with their health, whose turn it is, and what to do when none is left.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    address::ServerAddr,
    balance::{self, Tried},
    config::model::{HealthCheck, ServerProtocol, Timeouts},
    health::Health,
    page::Page,
    proxy_protocol,
    tls::server::ServerTls,
    upstream::{budget::Budget, pool::PoolKey},
    variants::MadeOf,
};

#[derive(Debug)]
pub struct Service {
    pub name: Arc<str>,
    pub servers: Vec<Server>,
    pub tls: Option<ServerTls>,
    pub protocol: ServerProtocol,
    /// Connections begin with a header that names the client, and serve one request.
    pub send_proxy: Option<proxy_protocol::Version>,
    pub check: Option<HealthCheck>,
    pub timeouts: Timeouts,
    pub when_all_down: WhenAllDown,
    pub budget: Arc<Budget>,
    pub counters: Arc<ServiceCounters>,
    pub turn: Turn,
    /// Other services in the place of servers.
    pub made_of: Option<MadeOf>,
}

#[derive(Debug)]
pub struct Server {
    pub addr: ServerAddr,
    /// The address as logs spell it.
    pub label: Arc<str>,
    pub health: Arc<Health>,
    pub pool_key: PoolKey,
    pub counters: Arc<ServerCounters>,
}

/// A server that was picked for a request.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'a> {
    pub index: usize,
    pub server: &'a Server,
    /// How often it had fallen silent by then: when that changes, waiting for it is in vain.
    pub silences: u32,
}

#[derive(Debug, Clone)]
pub enum WhenAllDown {
    Page(Arc<Page>),
    /// Ask a server that is down all the same; the page is for when that fails too.
    TryThen(Arc<Page>),
}

#[derive(Debug, Default)]
pub struct ServiceCounters {
    pub requests: AtomicU64,
    pub retries: AtomicU64,
    pub pages: AtomicU64,
}

#[derive(Debug, Default)]
pub struct ServerCounters {
    pub requests: AtomicU64,
    pub failures: AtomicU64,
    /// Requests that it has under way now, see [`UnderWay`].
    pub active: AtomicU32,
}

/// A request that is a server's to answer: it counts from the pick until its answer's body has ended (or the connection that
/// it was upgraded to), the client has left, or the attempt has failed. Dropping it is all that takes.
#[derive(Debug)]
pub struct UnderWay(Arc<ServerCounters>);

/// Whose turn it is, counted up with each request.
#[derive(Debug)]
pub struct Turn(AtomicUsize);

// === impl Turn ===

impl Turn {
    /// Edge hosts and restarts shouldn't all begin with the first server.
    pub fn somewhere() -> Self {
        Self(AtomicUsize::new(fastrand::usize(..1 << 16)))
    }

    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

// === impl Server ===

impl Server {
    /// Counts a request that goes to this server.
    pub fn begin(&self) -> UnderWay {
        self.counters.active.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.counters.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Service ===

impl Service {
    /// The next server for a request that has been to `tried` already.
    pub fn pick(&self, tried: Tried) -> Option<Picked<'_>> {
        let turn = self.turn.next();
        let picked = |index: usize| {
            let server = &self.servers[index];
            Picked { index, server, silences: server.health.silences() }
        };
        // A server that is taken out for its silence is marked as down first and counted second. So the count is read
        // first and the mark second: whoever gets in at the last moment is still told to leave.
        let usable = |index: usize| self.servers[index].health.takes_work();
        let mut passed_over = tried;
        while let Some(index) = balance::round_robin(self.servers.len(), turn, passed_over, usable) {
            let picked = picked(index);
            if usable(index) {
                return Some(picked);
            }
            passed_over.insert(index);
        }
        match self.when_all_down {
            WhenAllDown::Page(_) => None,
            WhenAllDown::TryThen(_) => {
                let not_drained = |index: usize| !self.servers[index].health.is_draining();
                balance::round_robin(self.servers.len(), turn, tried, not_drained).map(picked)
            }
        }
    }

    /// The page for when no server answers.
    pub fn page(&self) -> &Page {
        match &self.when_all_down {
            WhenAllDown::Page(page) | WhenAllDown::TryThen(page) => page,
        }
    }
}
