//! A host's connection to the store: brings news, and carries the host's word.
//!
//! It knows nothing of what the host makes of them. Whatever fails, it begins anew at the next endpoint, ever more slowly up to
//! [`SLOWEST`], each host at a moment of its own: a store that comes back isn't met by all of them at once.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval_at, sleep},
};

use super::{member::Hosts, publish, report::Report};
use crate::store::{
    address::StoreAddress,
    etcd::{Lease, Session, StoreFault, Stored, Watch},
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

/// How often hosts are counted.
const COUNTED: Duration = Duration::from_secs(30);

/// How long whoever ends waits for another process of its host to speak, and how often it looks.
pub const SUCCEEDED: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);

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
    Hosts(Hosts),
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
    /// At the end: another process of this host speaks from now on.
    pub another_speaks: bool,
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
    reported: Option<Report>,
    remembered: Option<(Instant, Option<u64>)>,
    /// This host's user may not change what is current.
    forbidden: bool,
    counted: Option<Instant>,
}

impl Link {
    /// Goes on until nobody listens any more.
    pub async fn run(self) {
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

    async fn session(&self, nth: usize) -> Result<(), StoreFault> {
        // 1. What is current now, and from then on.
        let session = Session::open(&self.address, nth).await?;
        self.tell(News::Connected { endpoint: session.endpoint().to_owned() });
        let read = session.get(CURRENT).await?;
        self.told(read.found.as_ref().map(|stored| &*stored.bytes));
        let changes = session.watch(CURRENT, false, read.at).await?;

        // 2. News, and word of this host: neither waits for the other, or what is pushed would wait for the store's disk.
        tokio::select! {
            over = self.listen(&session, changes) => over,
            over = self.speak(&session) => over,
        }
    }

    /// Brings what comes and what is wished for, as long as the session lives.
    async fn listen(&self, session: &Session, mut changes: Watch) -> Result<(), StoreFault> {
        let mut wishes = self.wishes.clone();
        let mut brought = Vec::new();
        loop {
            let needs = wishes.borrow_and_update().needs.clone();
            brought.retain(|generation| needs.contains(generation));
            for generation in needs {
                if !brought.contains(&generation) {
                    brought.push(generation);
                    self.bring(session, generation).await?;
                }
            }
            tokio::select! {
                changed = changes.next() => {
                    for change in changed? {
                        self.told(change.value.as_ref().map(|stored| &*stored.bytes));
                    }
                }
                wished = wishes.changed() => if wished.is_err() {
                    // The other one says good-bye.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Tells the store of this host, as long as it is there.
    async fn speak(&self, session: &Session) -> Result<(), StoreFault> {
        let mut wishes = self.wishes.clone();
        let (mut done, mut lease) = (Done::default(), None);
        let mut keep = interval_at(Instant::now() + KEEP, KEEP);
        loop {
            let wished = wishes.borrow_and_update().clone();
            if wished.report.is_some() && lease.is_none() {
                lease = Some(session.lease(LEASE_SECONDS).await?);
            }
            if let Some(lease) = &lease {
                self.fulfil(session, lease, wished, &mut done).await?;
                self.count(session, &mut done).await?;
            }
            tokio::select! {
                wished = wishes.changed() => if wished.is_err() {
                    // Nobody wants anything any more: the host ends, or another process of it speaks.
                    let another = wishes.borrow().another_speaks;
                    return match lease {
                        Some(lease) => leave(session, &lease, done.reported.as_ref(), another).await,
                        None => Ok(()),
                    };
                },
                _ = keep.tick() => if let Some(lease) = &mut lease {
                    lease.keep().await?;
                }
            }
        }
    }

    async fn fulfil(
        &self,
        session: &Session,
        lease: &Lease,
        wishes: Wishes,
        done: &mut Done,
    ) -> Result<(), StoreFault> {
        if let Some(report) = wishes.report.filter(|report| done.reported.as_ref() != Some(report)) {
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            let (here, known) = (format!("{HOSTS}{}", report.host), format!("{KNOWN}{}", report.host));
            let runs = report.standing.generation;
            let mut puts = vec![(&*here, bytes.clone(), Some(lease.id))];
            if done.remembered.is_none_or(|(at, of)| of != runs || at.elapsed() > REMEMBERED) {
                puts.push((&*known, bytes, None));
                done.remembered = Some((Instant::now(), runs));
            }
            session.write(&puts).await?;
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

    /// How many hosts there are, now and then.
    async fn count(&self, session: &Session, done: &mut Done) -> Result<(), StoreFault> {
        if done.counted.is_none_or(|at| at.elapsed() >= COUNTED) {
            done.counted = Some(Instant::now());
            let counts = async { Ok((session.count(HOSTS).await?, session.count(KNOWN).await?)) };
            match counts.await {
                Ok((there, known)) => {
                    self.tell(News::Hosts(Hosts { there, gone: known.saturating_sub(there) }));
                }
                // It may not see the others, and needn't.
                Err(StoreFault::Refused { .. }) => {}
                Err(fault) => return Err(fault),
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

/// Gives a lease up, and with it what stands under it: the host is gone at once. Where another process of the same host speaks on,
/// it isn't: then its report stands there first, under that one's lease.
async fn leave(
    session: &Session,
    lease: &Lease,
    reported: Option<&Report>,
    another: bool,
) -> Result<(), StoreFault> {
    if let Some(report) = reported.filter(|_| another) {
        let (key, late) = (format!("{HOSTS}{}", report.host), Instant::now() + SUCCEEDED);
        let ours = |stored: &Stored| stored.lease == lease.id;
        while session.get(&key).await?.found.as_ref().is_some_and(ours) && Instant::now() < late {
            sleep(LOOK).await;
        }
    }
    session.revoke(lease.id).await
}
