//! A service as it runs: its servers with their health, how work is spread over them, and what to do when none is left.

pub mod balancer;
pub mod waits;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode, request};

use crate::{
    address::ServerAddr,
    balance::{self, Ask, Tried, Way, ewma::Ewma},
    clock::Moment,
    config::model::{HealthCheck, Offload, Pool, Retry, ServerProtocol, Timeouts},
    health::{Health, breaker::Breaker, ejection::Ejector},
    page::{Page, by_status::ByStatus},
    passthrough::counters::Carrying,
    proxy_protocol,
    service::balancer::{Balancer, Wanted},
    tls::server::ServerTls,
    upstream::{budget::Budget, hedge::Hedging, pool::PoolKey},
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
    /// What of passthrough the kernel carries.
    pub offload: Offload,
    pub check: Option<HealthCheck>,
    pub eject: Option<Ejector>,
    pub breaker: Option<Breaker>,
    /// When less than so many percent of the servers are usable, all are used.
    pub panic: u8,
    pub timeouts: Timeouts,
    pub pool: Pool,
    pub when_all_down: WhenAllDown,
    pub retry: Retry,
    pub hedging: Option<Hedging>,
    /// In the place of its servers' own answers.
    pub pages: Option<Arc<ByStatus>>,
    pub budget: Arc<Budget>,
    pub counters: Arc<ServiceCounters>,
    pub balancer: Balancer,
    pub turn: Turn,
    /// Other services in the place of servers.
    pub made_of: Option<MadeOf>,
}

#[derive(Debug)]
pub struct Server {
    pub addr: ServerAddr,
    /// The name that its address was found by, where it was written by name.
    pub name: Option<Arc<str>>,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    pub tier: u32,
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
    /// The visitor gets a cookie that leads back to it.
    mark: bool,
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
    /// Answers with a status of 500 or more that clients got.
    pub errors: AtomicU64,
    pub waits: waits::Waits,
    /// A server was found that takes no WebSockets: it has been told of.
    pub no_tunnel: AtomicBool,
}

#[derive(Debug, Default)]
pub struct ServerCounters {
    pub requests: AtomicU64,
    pub failures: AtomicU64,
    /// Requests that it has under way now, see [`UnderWay`].
    pub active: AtomicU32,
    /// When an answer of its own last made it suspect.
    doubted: AtomicU64,
    /// How long it takes to the first byte of an answer, where its service goes by that.
    pub latency: Ewma,
    /// Connections that are carried there untouched.
    pub carrying: Arc<Carrying>,
}

/// An answer makes a server suspect no more often, in milliseconds: one page that is always out of order must not have the
/// server probed all the time.
const DOUBTED_EVERY: u64 = 250;

/// A request that is a server's to answer: it counts from the pick until its answer's body has ended (or the connection that
/// it was upgraded to), the client has left, or the attempt has failed. Dropping it is all that takes.
#[derive(Debug)]
pub struct UnderWay(Arc<ServerCounters>);

/// Whose turn it is, counted up with each request.
#[derive(Debug)]
pub struct Turn(AtomicUsize);

fn learnt(server: &Server, took: Duration) {
    server.counters.latency.observe(took.as_micros() as f32, Moment::recent());
}

/// A failed attempt counts as an answer that took at least so long.
const FAILURE: Duration = Duration::from_secs(1);

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

// === impl ServiceCounters ===

impl ServiceCounters {
    /// A client gets an answer of its servers. `trace`: of a request that is sampled.
    pub fn answered(&self, waited: Duration, status: StatusCode, trace: Option<u128>) {
        self.waits.answered(waited, trace);
        if status.is_server_error() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Server ===

impl Server {
    /// Counts a request that goes to this server.
    pub fn begin(&self) -> UnderWay {
        self.counters.active.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.counters.clone())
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.counters.active.load(Ordering::Relaxed)
    }
}

impl Server {
    /// It answered, but as one does that isn't well: a probe at once tells whether that is so.
    pub fn doubt(&self, now: Moment) {
        let doubted = &self.counters.doubted;
        let last = doubted.load(Ordering::Relaxed);
        let due = last == 0 || now.since(Moment(last)) >= DOUBTED_EVERY;
        // Of several workers one is enough.
        let exchanged =
            due && doubted.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if exchanged {
            self.health.suspect();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Service ===

impl Service {
    /// What a request brings along for the choice of its server.
    pub fn wanted(&self, head: &request::Parts, client: IpAddr) -> Wanted {
        self.balancer.wanted(head, client)
    }

    /// The next server for a request that has been to `tried` already.
    pub fn pick(&self, tried: Tried, wanted: Wanted) -> Option<Picked<'_>> {
        // A server that is taken out for its silence is marked as down first and counted second. So the count is read
        // first and the mark second: whoever gets in at the last moment is still told to leave.
        if let Some(known) = wanted.known.filter(|known| !tried.contains(*known)) {
            let picked = Picked { mark: false, ..self.picked(known) };
            if self.balancer.keeps_visitors(&picked.server.health) {
                return Some(picked);
            }
        }
        let panics = self.panics();
        let mut passed_over = tried;
        while let Some(picked) = self.next(passed_over, wanted, panics) {
            if panics || picked.server.health.takes_work() {
                return Some(picked);
            }
            passed_over.insert(picked.index);
        }
        match self.when_all_down {
            WhenAllDown::Page(_) => None,
            WhenAllDown::TryThen(_) => self.next(tried, wanted, true),
        }
    }

    fn next(&self, tried: Tried, wanted: Wanted, whoever: bool) -> Option<Picked<'_>> {
        let Balancer { way, shares, reach, .. } = &self.balancer;
        let turn = if matches!(way, Way::RoundRobin) { self.turn.next() } else { 0 };
        let ask = Ask { turn, hash: wanted.hash, tried };
        let field = self.balancer.now(&self.servers, whoever);
        let dice = &mut || fastrand::u64(..);
        balance::pick(way, shares, reach, &field, ask, dice).map(|index| self.picked(index))
    }

    fn picked(&self, index: usize) -> Picked<'_> {
        let server = &self.servers[index];
        let silences = server.health.silences();
        Picked { index, server, silences, mark: self.balancer.sticky.is_some() }
    }

    /// An attempt brought an answer: what there is to learn from it, and to tell the visitor with it.
    /// `took`: where the service goes by that.
    pub fn answered(
        &self,
        picked: Picked<'_>,
        took: Option<Duration>,
        asked: &HeaderMap,
        answer: &mut HeaderMap,
    ) {
        if let Some(took) = took {
            learnt(picked.server, took);
        }
        if let Some(sticky) = self.balancer.sticky.as_ref().filter(|_| picked.mark) {
            sticky.mark(picked.index, asked, answer);
        }
    }

    /// An attempt failed after so long. One that fails at once must not look like a quick answer.
    pub fn failed(&self, picked: Picked<'_>, took: Option<Duration>) {
        if let Some(took) = took {
            learnt(picked.server, took.max(FAILURE));
        }
    }

    /// Whether so few servers are usable that the checks are believed no more.
    pub fn panics(&self) -> bool {
        if self.panic == 0 {
            return false;
        }
        let usable = self.servers.iter().filter(|server| server.health.status().usable()).count();
        usable * 100 < usize::from(self.panic) * self.servers.len()
    }

    /// Whether a server is up that a request has not been to yet.
    pub fn has_other(&self, tried: Tried) -> bool {
        let fresh =
            |(index, server): (usize, &Server)| !tried.contains(index) && server.health.status().usable();
        self.servers.iter().enumerate().any(fresh)
    }

    /// The page for when no server answers.
    pub fn page(&self) -> &Page {
        match &self.when_all_down {
            WhenAllDown::Page(page) | WhenAllDown::TryThen(page) => page,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{acme::Board, config, health::Status, snapshot::Snapshot};

    #[test]
    fn below_the_panic_threshold_every_server_is_used_again() {
        let text = "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\n\
                    servers = ['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']\npanic = '50%'\n\
                    health = { path = '/' }\n[[route]]\nservice = 'app'\n";
        let loaded =
            config::load_text(Path::new("weir.toml"), text).unwrap_or_else(|report| panic!("{report}"));
        let snapshot = Snapshot::new(loaded.config.into(), &Board::default().into(), None).unwrap();
        let service = &snapshot.services[0];
        let picked = || {
            let picked = (0..30)
                .filter_map(|_| service.pick(Default::default(), Default::default()))
                .map(|picked| picked.index);
            picked.collect::<std::collections::BTreeSet<_>>()
        };
        service.servers.iter().for_each(|server| server.health.change(Status::Up, false, String::new()));
        service.servers[0].health.change(Status::Down, false, String::new());
        assert!(!service.panics(), "two of three");
        assert_eq!(picked(), [1, 2].into());
        service.servers[1].health.change(Status::Down, false, String::new());
        assert!(service.panics(), "one of three");
        assert_eq!(picked(), [0, 1, 2].into());
    }
}
