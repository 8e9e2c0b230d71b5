//! A [`Link`](super::Link) at work: session after session.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{News, Value, Write};
use crate::{
    fleet::shared::MOST,
    store::{
        address::StoreAddress,
        etcd::{Session, StoreFault, Stored},
        layout::SHARED,
    },
};

/// How long is waited before the store is tried again: the first time, and at most.
const FIRST: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(5);

/// From one write to the next at least: a script that switches a thousand things takes its time.
const PACE: Duration = Duration::from_millis(10);

pub struct Work {
    pub address: StoreAddress,
    pub tell: mpsc::Sender<News>,
    pub writes: mpsc::Receiver<Write>,
    pub forbidden: bool,
}

impl Work {
    /// Goes on until nobody listens any more.
    pub async fn run(mut self) {
        let mut nth = fastrand::usize(..);
        let mut pause = FIRST;
        loop {
            let began = Instant::now();
            if let Err(fault) = self.session(nth).await
                && self.tell.send(News::Away { why: fault.to_string() }).await.is_err()
            {
                return;
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
        let session = Session::open(&self.address, nth).await?;
        let page = session.page(SHARED, MOST as i64).await?;
        let mut changes = session.watch(SHARED, true, page.at).await?;
        self.forbidden = false;
        // What was wanted before is wanted again, if it still is.
        while self.writes.try_recv().is_ok() {}
        if page.more {
            tracing::warn!(
                "more than {MOST} keys stand below `{SHARED}` in the store: the rest of them is passed over"
            );
        }
        let found = page.found.into_iter().map(|(key, stored)| (key, value(stored))).collect();
        self.tell(News::Whole { cluster: page.cluster, at: page.at, found }).await?;
        loop {
            tokio::select! {
                changed = changes.next() => {
                    for change in changed? {
                        let Some(key) = change.key.strip_prefix(SHARED) else { continue };
                        self.tell(News::Changed { key: key.to_owned(), value: change.value.map(value) }).await?;
                    }
                }
                Some(write) = self.writes.recv() => {
                    if !self.write(&session, write).await? {
                        return Ok(());
                    }
                    sleep(PACE).await;
                }
            }
        }
    }

    /// Whether it stands there now; otherwise somebody was faster.
    async fn write(&mut self, session: &Session, write: Write) -> Result<bool, StoreFault> {
        if self.forbidden {
            return Ok(true);
        }
        let or_anew = write.or_anew;
        match put(session, write).await {
            Err(StoreFault::Refused { endpoint, why }) => {
                self.forbidden = true;
                let why = format!("{endpoint} doesn't let this host write below `{SHARED}`: {why}");
                self.tell(News::Forbidden { why }).await?;
                Ok(true)
            }
            outcome => Ok(outcome? || !or_anew),
        }
    }

    async fn tell(&self, news: News) -> Result<(), StoreFault> {
        let gone = |_| StoreFault::Unusable("nobody wants to know any more".to_owned());
        self.tell.send(news).await.map_err(gone)
    }
}

async fn put(session: &Session, Write { key, bytes, lasts, only_at, .. }: Write) -> Result<bool, StoreFault> {
    let key = format!("{SHARED}{key}");
    let lease = match lasts {
        Some(seconds) => Some(session.term(seconds).await?),
        None => None,
    };
    match only_at {
        Some(revision) => session.put_if(&key, bytes, lease, revision).await,
        None => session.put(&key, bytes, lease).await.map(|()| true),
    }
}

fn value(Stored { bytes, revision, .. }: Stored) -> Value {
    Value { bytes, revision }
}
