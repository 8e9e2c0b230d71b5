//! A steady load of requests from a namespace, and what became of each of them.
//!
//! The load is open: requests begin by the clock, not when the one before is done. A server that hangs therefore
//! meets as many requests as one that answers, and no delay hides behind another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hyper::Request;
use tokio::time::MissedTickBehavior;

use super::{
    client::{Browser, Connection, Outgoing, Reply, Target, body, nothing},
    station::Station,
    wait,
};

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Record {
    pub begun: Instant,
    pub took: Duration,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200, from the server of this name.
    Served(String),
    /// The edge's maintenance page.
    Maintenance,
    /// Any other status.
    Status(u16),
    /// No response, and why.
    Broken(String),
}

/// What is asked for.
#[derive(Debug)]
enum What {
    Page(String),
    /// POSTs that must not come twice.
    Orders {
        first: u64,
    },
}

impl What {
    fn request(&self, number: u64) -> hyper::http::Result<Request<Outgoing>> {
        match self {
            Self::Page(path) => Request::get(path).body(nothing()),
            Self::Orders { first } => {
                Request::post(format!("/order?id={}", first + number)).body(body("pay 5"))
            }
        }
    }
}

impl Record {
    pub fn ended(&self) -> Instant {
        self.begun + self.took
    }

    pub fn served_by(&self, name: &str) -> bool {
        matches!(&self.outcome, Outcome::Served(by) if by == name)
    }

    pub fn is_served(&self) -> bool {
        matches!(self.outcome, Outcome::Served(_))
    }

    /// Neither served nor given the maintenance page.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Status(_) | Outcome::Broken(_))
    }
}

/// Requests that go on until the load is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    /// A thread of its own, so that nothing else delays its clock.
    _station: Station,
}

#[derive(Debug)]
struct Shared {
    records: Mutex<Vec<Record>>,
    running: AtomicBool,
    /// When each of the requests began that haven't ended; by their number.
    in_flight: Mutex<BTreeMap<u64, Instant>>,
}

impl Load {
    /// So many requests a second for `path`, over connections that are kept and used again.
    pub fn start(
        namespace: &super::namespace::Namespace,
        browser: &Browser,
        path: &str,
        per_second: u32,
    ) -> anyhow::Result<Self> {
        Self::begin(namespace, browser, What::Page(path.to_owned()), per_second)
    }

    fn begin(
        namespace: &super::namespace::Namespace,
        browser: &Browser,
        what: What,
        per_second: u32,
    ) -> anyhow::Result<Self> {
        let station = Station::open(namespace)?;
        let shared = Arc::new(Shared {
            records: Mutex::default(),
            running: AtomicBool::new(true),
            in_flight: Mutex::default(),
        });
        station.spawn(beat(Arc::clone(&shared), browser.target.clone(), what, per_second));
        Ok(Self { shared, _station: station })
    }

    /// Orders, each with a number of its own from `first` on.
    pub fn ordering(
        namespace: &super::namespace::Namespace,
        browser: &Browser,
        first: u64,
        per_second: u32,
    ) -> anyhow::Result<Self> {
        Self::begin(namespace, browser, What::Orders { first }, per_second)
    }

    /// What has been recorded up to now.
    pub fn records(&self) -> Vec<Record> {
        self.shared.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that ended after `moment`.
    pub fn records_since(&self, moment: Instant) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.ended() >= moment).collect()
    }

    /// Waits until a request that *began* after `moment` has the wanted end; returns that one.
    pub fn wait_for(
        &self,
        what: &str,
        moment: Instant,
        within: Duration,
        wanted: impl Fn(&Record) -> bool,
    ) -> anyhow::Result<Record> {
        wait::until(what, within, || {
            Ok(self.records().into_iter().find(|record| record.begun >= moment && wanted(record)))
        })
        .with_context(|| format!("since then the load saw {}", summary(&self.records_since(moment))))
    }

    /// Waits until so many further requests have ended well.
    pub fn wait_for_more(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let before = self.records().len();
        wait::until_true(&format!("{count} more requests have ended"), within, || {
            Ok(self.records().len() >= before + count)
        })
    }

    /// Waits until everything that began before `moment` has ended.
    pub fn wait_until_past(&self, moment: Instant, within: Duration) -> anyhow::Result<()> {
        wait::until_true("the requests in flight have ended", within, || {
            Ok(self.shared.in_flight().values().all(|&begun| begun >= moment))
        })
    }

    /// Begins no further request.
    pub fn cease(&self) {
        self.shared.running.store(false, Ordering::Release);
    }

    /// Stops, lets the requests in flight end, and hands over all the records.
    pub fn stop(self) -> anyhow::Result<Vec<Record>> {
        self.stop_within(Duration::from_secs(15))
    }

    /// The same, for requests that may take long.
    pub fn stop_within(self, patience: Duration) -> anyhow::Result<Vec<Record>> {
        self.cease();
        wait::until_true("the last requests have ended", patience, || {
            Ok(self.shared.in_flight().is_empty())
        })?;
        Ok(self.records())
    }
}

impl Shared {
    fn in_flight(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn beat(shared: Arc<Shared>, target: Target, what: What, per_second: u32) {
    let idle = Arc::new(Mutex::new(Vec::<Connection>::new()));
    let mut clock = tokio::time::interval(Duration::from_secs(1) / per_second);
    // A client that got no CPU for a while doesn't make up for it: the burst would be its own doing, not the edge's.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while shared.running.load(Ordering::Acquire) {
        clock.tick().await;
        number += 1;
        let (shared, target, request, idle) =
            (Arc::clone(&shared), target.clone(), what.request(number), Arc::clone(&idle));
        let begun = Instant::now();
        shared.in_flight().insert(number, begun);
        tokio::spawn(async move {
            let outcome =
                one(&target, request, &idle).await.unwrap_or_else(|why| Outcome::Broken(format!("{why:#}")));
            let record = Record { begun, took: begun.elapsed(), outcome };
            shared.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            shared.in_flight().remove(&number);
        });
    }
}

async fn one(
    target: &Target,
    request: hyper::http::Result<Request<Outgoing>>,
    idle: &Mutex<Vec<Connection>>,
) -> anyhow::Result<Outcome> {
    let kept = || {
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Connection::is_open);
        idle.pop()
    };
    let mut connection = match kept() {
        Some(connection) => connection,
        None => Connection::open(target).await?,
    };
    let reply = connection.send(request?).await?;
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    Ok(outcome(&reply))
}

fn outcome(reply: &Reply) -> Outcome {
    match reply.upstream() {
        Some(name) if reply.status.is_success() => Outcome::Served(name.to_owned()),
        _ if reply.is_maintenance() => Outcome::Maintenance,
        _ => Outcome::Status(reply.status.as_u16()),
    }
}

/// The longest that anybody had to wait.
pub fn longest(records: &[Record]) -> Duration {
    records.iter().map(|record| record.took).max().unwrap_or_default()
}

/// Those that something which happened at `moment` can have delayed: in flight then, or begun within `span` of it.
/// Later ones only say how busy the machine is.
pub fn concerned(records: &[Record], moment: Instant, span: Duration) -> Vec<Record> {
    let concerned = |record: &&Record| record.ended() >= moment && record.begun <= moment + span;
    records.iter().filter(concerned).cloned().collect()
}

/// Those that took longest, for the message of a test that minds: when they began, from a moment on, and how it went.
pub fn slowest(records: &[Record], since: Instant) -> String {
    let mut records: Vec<_> = records.iter().collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.took));
    let line = |record: &&Record| {
        let begun = record.begun.saturating_duration_since(since);
        format!("{:?} (begun after {begun:?}): {:?}", record.took, record.outcome)
    };
    records.iter().take(5).map(line).collect::<Vec<_>>().join("; ")
}

pub fn failed(records: &[Record]) -> usize {
    records.iter().filter(|record| record.is_failed()).count()
}

/// How often each end was met, in words.
pub fn summary(records: &[Record]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for record in records {
        let end = match &record.outcome {
            Outcome::Served(by) => format!("served by {by}"),
            Outcome::Maintenance => "maintenance page".to_owned(),
            Outcome::Status(status) => format!("status {status}"),
            Outcome::Broken(why) => format!("failed: {why}"),
        };
        *counts.entry(end).or_default() += 1;
    }
    if counts.is_empty() {
        return "no request".to_owned();
    }
    let parts: Vec<_> = counts.into_iter().map(|(end, count)| format!("{count} × {end}")).collect();
    parts.join(", ")
}

/// Fails with a summary unless every request was served.
pub fn all_served(records: &[Record]) -> anyhow::Result<()> {
    if records.is_empty() || !records.iter().all(Record::is_served) {
        bail!("not every request was served: {}", summary(records));
    }
    Ok(())
}
