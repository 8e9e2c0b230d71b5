//! A host's part in the fleet: what the store says goes through the [`Reconciler`], what is to run goes to the [`Host`], and what
//! became of it goes back to the store.

use std::{future::Future, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    judge::Judge,
    link::{Link, News, SUCCEEDED, Wishes},
    member::{Ends, Seen},
    now,
    reconcile::{Reconciler, Step},
    report::{Figures, Report},
};
use crate::store::{
    address::StoreAddress,
    layout::{Generation, LAYOUT},
};

/// How often a host looks at itself.
const LOOK: Duration = Duration::from_secs(1);

/// How often it reports figures that are no news.
const REPORT: i64 = 10_000;

/// What runs a configuration.
pub trait Host: Send {
    /// Has these documents run in the place of the last ones. What became of it, [`Self::outcome`] tells.
    fn offer(&mut self, generation: &Generation) -> impl Future<Output = ()> + Send;

    /// What became of a generation that was offered: the next that isn't told yet. Must be safe to cancel.
    fn outcome(&mut self) -> impl Future<Output = (u64, Result<(), String>)> + Send;

    fn figures(&mut self) -> Figures;

    /// Whether it may speak for itself, and keep anything. Not while another process of the same host may.
    fn speaks(&self) -> bool;

    /// How it stands with the store, whenever that has changed.
    fn seen(&mut self, seen: &Seen) -> impl Future<Output = ()> + Send;

    /// Something is known now that should outlive the daemon. Nobody waits until it is on the disk.
    fn keep(&mut self, mind: &Reconciler);
}

/// One host.
pub struct Agent {
    pub address: StoreAddress,
    pub mind: Reconciler,
    /// Whether it tells the store of itself, and may take back what it can't run.
    pub reports: bool,
}

impl Agent {
    /// Goes on until `ends` says that it is time.
    pub async fn run(self, mut host: impl Host, ends: impl Future<Output = Ends>) {
        let (tell, mut news) = mpsc::unbounded_channel();
        let (wish, wishes) = watch::channel(Wishes::default());
        let link = Link { address: self.address, wishes, news: tell }.run();
        let mut life = Life { mind: self.mind, reports: self.reports, ..Life::default() };
        let work = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                life.act(&mut host, &wish).await;
                tokio::select! {
                    // It ends with the link, which never does before it.
                    Some(told) = news.recv() => life.hear(told),
                    (generation, outcome) = host.outcome() => life.learn(generation, outcome, &mut host),
                    _ = looks.tick() => life.look(&mut host),
                    () = due(&life.mind) => {}
                }
            }
        };
        tokio::pin!(link);
        let ends = tokio::select! {
            never = work => never,
            () = &mut link => return,
            ends = ends => ends,
        };
        // The link says good-bye, if the store is there.
        if matches!(life.seen.store, Some(Ok(_))) {
            let (another_speaks, patience) = match ends {
                Ends::Host => (false, LOOK),
                Ends::Process => (true, SUCCEEDED + LOOK),
            };
            wish.send_modify(|wishes| wishes.another_speaks = another_speaks);
            drop((wish, news));
            let _ = tokio::time::timeout(patience, link).await;
        }
    }
}

/// Resolves when something is over by the clock.
async fn due(mind: &Reconciler) {
    let now = now();
    match mind.due(now) {
        Some(at) => {
            let left = Duration::from_millis(u64::try_from(at - now).unwrap_or(0));
            sleep_until(Instant::now() + left).await;
        }
        None => std::future::pending().await,
    }
}

struct Life {
    mind: Reconciler,
    reports: bool,
    judge: Judge,
    figures: Figures,
    /// When they were last reported.
    reported: i64,
    /// What it knows isn't where it outlives the daemon.
    unkept: bool,
    seen: Seen,
}

impl Life {
    fn hear(&mut self, news: News) {
        match news {
            News::Connected { endpoint } => self.seen.store = Some(Ok(endpoint)),
            News::Away { why } => self.seen.store = Some(Err(why)),
            News::NoCurrent { why } => {
                tracing::debug!(why, "the store names no generation");
                self.seen.nothing = true;
            }
            News::Current(current) => {
                self.seen.nothing = false;
                self.mind.learn(current);
                self.unkept = true;
            }
            News::Generation(generation) => self.mind.stock(generation),
            News::Damaged { generation, why } => self.mind.damaged(generation, &why),
            News::Hosts(hosts) => self.seen.hosts = Some(hosts),
        }
    }

    fn learn(&mut self, generation: u64, outcome: Result<(), String>, host: &mut impl Host) {
        if outcome.is_ok() && self.mind.standing().generation != Some(generation) {
            // What has failed up to this moment is none of its doing.
            self.judge.note(host.figures().failures(), now());
            self.judge.taken_over();
        }
        self.mind.outcome(generation, outcome, now());
        self.unkept = true;
        self.keep(host);
    }

    fn keep(&mut self, host: &mut impl Host) {
        if self.unkept && host.speaks() {
            self.unkept = false;
            host.keep(&self.mind);
        }
    }

    fn look(&mut self, host: &mut impl Host) {
        let (figures, now) = (host.figures(), now());
        self.judge.note(figures.failures(), now);
        if figures.differ(&self.figures) || now - self.reported >= REPORT {
            self.reported = now;
            self.figures = figures;
        }
        // Not as soon as something is known: first of all it is to run.
        self.keep(host);
    }

    /// Does what is to be done, and wishes for what is missing.
    async fn act(&mut self, host: &mut impl Host, wish: &watch::Sender<Wishes>) {
        let now = now();
        let mut needs = Vec::new();
        match self.mind.next(now) {
            Step::Stay => {}
            Step::Need(generation) => needs.push(generation),
            Step::Offer(generation) => host.offer(&generation).await,
        }
        needs.extend(self.mind.spare(now));
        let wishes = if self.reports && host.speaks() {
            let report = Report {
                layout: LAYOUT,
                host: self.mind.host().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                at: self.reported.max(self.mind.standing().since),
                standing: self.mind.standing().clone(),
                figures: self.figures.clone(),
                more: serde_json::Map::new(),
            };
            let halt = self.mind.halt(self.judge.verdict().as_deref(), now);
            Wishes { needs, report: Some(report), halt, another_speaks: false }
        } else {
            // Its last word stays.
            Wishes { needs, report: wish.borrow().report.clone(), ..Wishes::default() }
        };
        wish.send_if_modified(|known| {
            let differs = *known != wishes;
            *known = wishes;
            differs
        });

        self.seen.current = self.mind.known().cloned();
        self.seen.standing = self.mind.standing().clone();
        host.seen(&self.seen).await;
    }
}

impl Default for Life {
    fn default() -> Self {
        Self {
            mind: Reconciler::new(""),
            reports: false,
            judge: Judge::default(),
            figures: Figures::default(),
            reported: 0,
            unkept: false,
            seen: Seen::default(),
        }
    }
}
