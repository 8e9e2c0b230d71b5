//! A host's connection to the store: brings news, and carries the host's word.
//!
//! It knows nothing of what the host makes of them. Whatever fails, it begins anew at the next endpoint, ever more slowly up to
//! [`SLOWEST`], each host at a moment of its own: a store that comes back isn't met by all of them at once.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval_at, sleep},
};

use super::{publish, report::Report};
use crate::store::{
    address::StoreAddress,
    etcd::{Lease, Session, StoreFault},
    layout::{CURRENT, Current, Generation, HOSTS, Halted, KNOWN, generation_key},
};

/// A host is gone when nothing was heard of it for so long.
pub const LEASE_SECONDS: i64 = 15;

/// How often it is heard at least.
const KEEP: Duration = Duration::from_secs(LEASE_SECONDS as u64 / 3);

/// How long is waited before the store is tried again: the first time, and at most.
pub const FIRST: Duration = Duration::from_millis(200);
pub const SLOWEST: Duration = Duration::from_secs(5);

/// What stays of a host is written this often, and when it begins to run something else.
const REMEMBERED: Duration = Duration::from_secs(300);

/// What the link has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// An endpoint answers.
    Connected {
        endpoint: String,
    },
    /// None does, or not any more.
    Away {
        why: String,
    },
    Current(Current),
    /// There is nothing that could be current, or it can't be believed.
    NoCurrent {
        why: String,
    },
    Generation(Generation),
    /// It is not there, or can't be believed.
    Damaged {
        generation: u64,
        why: String,
    },
}

/// What the host wants of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// Generations to be brought.
    pub needs: Vec<u64>,
    /// What the host says of itself. `None`: it doesn't report.
    pub report: Option<Report>,
    /// What the host wants to be taken back.
    pub halt: Option<Halted>,
}

/// One host's end.
pub struct Link {
    pub address: StoreAddress,
    pub wishes: watch::Receiver<Wishes>,
    pub news: mpsc::UnboundedSender<News>,
}

/// What a session has done already.
#[derive(Default)]
struct Done {
    brought: Vec<u64>,
    reported: Option<Report>,
    remembered: Option<(Instant, Option<u64>)>,
    /// This host's user may not change what is current.
    forbidden: bool,
}

impl Link {
    /// Goes on until nobody listens any more.
    pub async fn run(mut self) {
        let mut nth = fastrand::usize(..);
        let mut pause = FIRST;
        while !self.news.is_closed() {
            let began = Instant::now();
            if let Err(fault) = self.session(nth).await {
                self.tell(News::Away { why: fault.to_string() });
            }
            if began.elapsed() > SLOWEST {
                pause = FIRST;
            }
            nth = nth.wrapping_add(1);
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn session(&mut self, nth: usize) -> Result<(), StoreFault> {
        // 1. What is current now, and from then on.
        let session = Session::open(&self.address, nth).await?;
        self.tell(News::Connected { endpoint: session.endpoint().to_owned() });
        let read = session.get(CURRENT).await?;
        self.told(read.found.as_ref().map(|stored| &*stored.bytes));
        let mut changes = session.watch(CURRENT, false, read.at).await?;

        // 2. Word of this host, as long as it is there.
        let mut done = Done::default();
        let reports = self.wishes.borrow_and_update().report.is_some();
        let mut lease = if reports { Some(session.lease(LEASE_SECONDS).await?) } else { None };
        let mut keep = interval_at(Instant::now() + KEEP, KEEP);
        loop {
            self.fulfil(&session, lease.as_ref(), &mut done).await?;
            tokio::select! {
                changed = changes.next() => {
                    for change in changed? {
                        self.told(change.value.as_ref().map(|stored| &*stored.bytes));
                    }
                }
                wished = self.wishes.changed() => {
                    if wished.is_err() {
                        // Nobody wants anything any more: the host ends, and says so. What another process of this host
                        // wrote meanwhile is under that one's lease, and stays.
                        return match lease {
                            Some(lease) => session.revoke(lease.id).await,
                            None => Ok(()),
                        };
                    }
                    if lease.is_none() && self.wishes.borrow().report.is_some() {
                        lease = Some(session.lease(LEASE_SECONDS).await?);
                    }
                }
                _ = keep.tick() => if let Some(lease) = &mut lease {
                    lease.keep().await?;
                }
            }
        }
    }

    async fn fulfil(
        &self,
        session: &Session,
        lease: Option<&Lease>,
        done: &mut Done,
    ) -> Result<(), StoreFault> {
        let wishes = self.wishes.borrow().clone();
        done.brought.retain(|generation| wishes.needs.contains(generation));
        for generation in wishes.needs {
            if !done.brought.contains(&generation) {
                done.brought.push(generation);
                self.bring(session, generation).await?;
            }
        }
        if let (Some(report), Some(lease)) = (wishes.report, lease)
            && done.reported.as_ref() != Some(&report)
        {
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            session.put(&format!("{HOSTS}{}", report.host), bytes.clone(), Some(lease.id)).await?;
            let runs = report.standing.generation;
            if done.remembered.is_none_or(|(at, of)| of != runs || at.elapsed() > REMEMBERED) {
                session.put(&format!("{KNOWN}{}", report.host), bytes, None).await?;
                done.remembered = Some((Instant::now(), runs));
            }
            done.reported = Some(report);
        }
        if let Some(halted) = wishes.halt.filter(|_| !done.forbidden) {
            match publish::halt(session, halted).await {
                Err(StoreFault::Refused { endpoint, why }) => {
                    tracing::warn!("{endpoint} doesn't let this host take a generation back: {why}");
                    done.forbidden = true;
                }
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    async fn bring(&self, session: &Session, generation: u64) -> Result<(), StoreFault> {
        let read = session.get(&generation_key(generation)).await?;
        let found = match &read.found {
            Some(stored) => Generation::read(generation, &stored.bytes),
            None => Err(format!("generation {generation} is not in the store")),
        };
        self.tell(match found {
            Ok(generation) => News::Generation(generation),
            Err(why) => News::Damaged { generation, why },
        });
        Ok(())
    }

    fn told(&self, current: Option<&[u8]>) {
        self.tell(match current.map(Current::read) {
            Some(Ok(current)) => News::Current(current),
            Some(Err(why)) => News::NoCurrent { why },
            None => News::NoCurrent { why: "nothing was pushed to the store yet".to_owned() },
        });
    }

    fn tell(&self, news: News) {
        // Nobody listens when the host ends.
        let _ = self.news.send(news);
    }
}
