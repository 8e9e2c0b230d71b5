//! Keeps a copy of what stands sealed in the store, in memory and on disk, and tells of every change.
//!
//! As [`super::link`] it resumes nothing: after whatever went wrong it reads all of it anew, at the next endpoint. What goes on disk is
//! as sealed as in the store, and without what is gone in a moment.

use std::{convert::Infallible, fs::DirBuilder, os::unix::fs::DirBuilderExt, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    link::{FIRST, SLOWEST},
    sharing::{Entries, KEPT_VERSION, Kept, Known, Shared, Taker},
};
use crate::{
    control::trial::write_whole,
    store::{
        etcd::{Changed, Session, StoreFault, Stored},
        layout::{ACME, AUTHORITIES, CERTIFICATES, CERTIFICATES_MARK, CHALLENGES, HEARD, ORDER},
    },
};

/// One host's copy.
pub struct Mirror {
    pub shared: Shared,
    pub taker: Taker,
    pub tell: watch::Sender<Known>,
}

impl Mirror {
    /// Goes on until it is dropped.
    pub async fn run(mut self) {
        let mut nth = fastrand::usize(..);
        let mut pause = FIRST;
        loop {
            let began = Instant::now();
            let Err(fault) = self.session(nth).await;
            let why = fault.to_string();
            tracing::debug!("the mirror of the fleet's store begins anew: {why}");
            self.tell.send_modify(|known| known.away = Some(why));
            if began.elapsed() > SLOWEST {
                pause = FIRST;
            }
            nth = nth.wrapping_add(1);
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn session(&mut self, nth: usize) -> Result<Infallible, StoreFault> {
        // 1. All that is there now.
        let session = Session::open(&self.shared.address, nth).await?;
        let certificates = session.list(CERTIFICATES).await?;
        let acme = session.list(ACME).await?;
        let mut of_operators = session.watch(CERTIFICATES, true, certificates.at).await?;
        let mut of_hosts = session.watch(ACME, true, acme.at).await?;
        let mut entries = Entries::new();
        for (below, found) in [(CERTIFICATES, certificates.found), (ACME, acme.found)] {
            entries.extend(
                found.iter().filter_map(|(name, stored)| Some((format!("{below}{name}"), text(stored)?))),
            );
        }
        if !entries.keys().any(|key| key.starts_with(CERTIFICATES))
            && session.get(CERTIFICATES_MARK).await?.found.is_none()
        {
            // A store that was made anew takes no site off the air: one whose certificates were removed still has the mark.
            let known = certificates_of(&self.tell.borrow().entries);
            if !known.is_empty() {
                tracing::warn!(
                    "the fleet's store has no certificates and never had any; those that this host knew stay in use"
                );
                entries.extend(known);
            }
        }
        self.learn(entries).await;
        self.acknowledge(&session, acme.at).await;

        // 2. What changes.
        loop {
            let changed = tokio::select! {
                changed = of_operators.next() => changed?,
                changed = of_hosts.next() => changed?,
            };
            let at = changed.iter().filter(|one| one.key.starts_with(CHALLENGES));
            let at = at.filter_map(|one| one.value.as_ref()).map(|stored| stored.revision).max();
            let mut entries = self.tell.borrow().entries.clone();
            apply(&mut entries, changed);
            self.learn(entries).await;
            if let Some(at) = at {
                self.acknowledge(&session, at).await;
            }
        }
    }

    /// Puts it to use, tells of it, and keeps it.
    async fn learn(&mut self, entries: Entries) {
        self.taker.take(&entries);
        let before = lasting(&self.tell.borrow().entries);
        let now = lasting(&entries);
        self.tell.send_modify(|known| *known = Known { entries, heard: true, away: None });
        if before == now {
            return;
        }
        let kept = Kept {
            version: KEPT_VERSION,
            prefix: self.shared.address.prefix.clone(),
            entries: now.iter().map(|(key, sealed)| (key.clone(), sealed.to_string())).collect(),
        };
        let path = self.shared.kept.clone();
        let saving = move || {
            let text = serde_json::to_vec(&kept).unwrap_or_default();
            let folder = path.parent().unwrap_or(&path);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            if let Err(error) = made.and_then(|()| write_whole(&path, &text, 0o600)) {
                tracing::warn!(
                    "{} can't be written: {error}: started while the store is away, this host has no or older certificates",
                    path.display()
                );
            }
        };
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(saving).await;
    }

    /// Tells whoever orders that this host can answer for it now, for as long as the order takes.
    async fn acknowledge(&self, session: &Session, at: i64) {
        let holder = self.tell.borrow().entries.get(ORDER).and_then(|holder| Holder::read(holder));
        let Some(holder) = holder.filter(|holder| holder.host != *self.shared.host) else { return };
        let key = format!("{HEARD}{}", self.shared.host);
        // The order may be over by now, and its lease with it. If the store is away, the watches say so.
        if let Err(fault) = session.put(&key, at.to_string().into_bytes(), Some(holder.lease)).await {
            tracing::debug!("a challenge was heard of too late: {fault}");
        }
    }
}

/// Who orders, as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    pub host: String,
    pub lease: i64,
}

impl Holder {
    /// `None`: not understood, a newer weir's perhaps.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn certificates_of(entries: &Entries) -> Entries {
    let these = entries.iter().filter(|(key, _)| key.starts_with(CERTIFICATES));
    these.map(|(key, sealed)| (key.clone(), sealed.clone())).collect()
}

/// What is worth a place on disk.
fn lasting(entries: &Entries) -> Entries {
    let lasts = |key: &str| key.starts_with(CERTIFICATES) || key.starts_with(AUTHORITIES);
    entries.iter().filter(|(key, _)| lasts(key)).map(|(key, sealed)| (key.clone(), sealed.clone())).collect()
}

fn apply(entries: &mut Entries, changed: Vec<Changed>) {
    for Changed { key, value } in changed {
        match value {
            Some(stored) => match text(&stored) {
                Some(text) => _ = entries.insert(key, text),
                None => {
                    tracing::warn!("`{key}` in the fleet's store is nothing that weir wrote, and left alone");
                }
            },
            None => _ = entries.remove(&key),
        }
    }
}

fn text(stored: &Stored) -> Option<Arc<str>> {
    std::str::from_utf8(&stored.bytes).ok().map(Arc::from)
}

/// How long whoever orders waits for the other hosts.
pub const HEARING: Duration = Duration::from_secs(3);
