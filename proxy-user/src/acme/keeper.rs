//! Keeps the certificates of all names current: one task, one order at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use super::{
    Board, Standing,
    order::{self, Alone},
    schedule,
    store::Store,
};
use crate::config::model::{Acme, Config};
use crate::fleet::sharing::Shared;
use crate::journal::{Kind, Note};

/// Certificates grow old while a machine sleeps, and clocks are set: nothing is waited for longer than this at once.
pub const LOOK: Duration = Duration::from_secs(600);

/// The task, and what it shares.
#[derive(Debug, Default)]
pub struct Keeper {
    pub board: Arc<Board>,
    keeping: Option<Keeping>,
}

/// A running task. It ends when this is dropped, and an order with it.
#[derive(Debug)]
struct Keeping {
    acme: Acme,
    store: Store,
    names: BTreeSet<Arc<str>>,
    /// With the fleet, or alone.
    shared: Option<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Task {
    acme: Acme,
    store: Store,
    board: Arc<Board>,
    /// When each name is due, and how often it failed since it last succeeded.
    due: BTreeMap<Arc<str>, (SystemTime, u32)>,
}

// === impl Keeper ===

impl Keeper {
    /// Keeps the certificates that `config` wants, and no others; with the fleet, where there is something `shared`. What is on the disk
    /// is shown at once.
    pub fn follow(&mut self, config: &Config, shared: Option<Shared>) {
        let names: BTreeSet<Arc<str>> = config
            .entrypoints
            .iter()
            .filter_map(|entrypoint| entrypoint.tls.as_ref())
            .flat_map(|tls| tls.acme.iter().cloned())
            .collect();
        let Some(acme) = config.acme.as_ref().filter(|_| !names.is_empty()) else {
            self.keeping = None;
            self.board.keep_only(&[]);
            return;
        };
        let store = Store::within(&config.state.dir, &acme.directory.to_string());
        let together = |keeping: &Keeping| match (&keeping.shared, &shared) {
            (Some(one), Some(two)) => one.same_as(two),
            (None, None) => true,
            _ => false,
        };
        let same = |keeping: &Keeping| {
            keeping.acme.same_as(acme)
                && keeping.store == store
                && keeping.names == names
                && together(keeping)
        };
        if self.keeping.as_ref().is_some_and(same) {
            return;
        }
        self.keeping = None;
        let listed: Vec<_> = names.iter().cloned().collect();
        self.board.keep_only(&listed);
        let task = match shared.clone() {
            #[cfg(feature = "etcd")]
            Some(shared) => {
                let (own, board) = (store.clone(), self.board.clone());
                tokio::spawn(super::together::Together::new(acme.clone(), own, board, shared, &listed).run())
            }
            _ => {
                let now = SystemTime::now();
                let due =
                    |name: &Arc<str>| (name.clone(), (shown_from_disk(&self.board, &store, name, now), 0));
                let due = listed.iter().map(due).collect();
                let task = Task { acme: acme.clone(), store: store.clone(), board: self.board.clone(), due };
                tokio::spawn(task.run())
            }
        };
        self.keeping = Some(Keeping { acme: acme.clone(), store, names, shared, task });
    }
}

/// Shows what is kept for a name; when it is due.
pub fn shown_from_disk(board: &Board, store: &Store, name: &Arc<str>, now: SystemTime) -> SystemTime {
    match store.load(name) {
        Ok(Some(certificate)) => {
            let due = schedule::renewal(certificate.validity, fastrand::f64());
            board.pin(name, certificate);
            due
        }
        Ok(None) => now,
        Err(why) => {
            tracing::warn!("a certificate that was kept can't be used, and is ordered anew: {why}");
            now
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Task ===

impl Task {
    async fn run(mut self) {
        loop {
            let Some((name, due)) = self.next() else { return };
            for (name, (due, _)) in &self.due {
                let error = self.board.standing(name).error;
                self.board.stands(name, Standing { error, next: Timestamp::try_from(*due).ok() });
            }
            match due.duration_since(SystemTime::now()) {
                Ok(wait) if !wait.is_zero() => tokio::time::sleep(wait.min(LOOK)).await,
                _ => self.renew(&name).await,
            }
        }
    }

    /// The name that is due first.
    fn next(&self) -> Option<(Arc<str>, SystemTime)> {
        self.due.iter().min_by_key(|(_, (due, _))| *due).map(|(name, (due, _))| (name.clone(), *due))
    }

    async fn renew(&mut self, name: &Arc<str>) {
        let failures = self.due.get(name).map_or(0, |(_, failures)| *failures);
        let outcome = self.obtain(name).await;
        let (due, failures, error) = match outcome {
            Ok(due) => (due, 0, None),
            Err(why) => {
                let wait = schedule::retry(failures + 1, fastrand::f64());
                (SystemTime::now() + wait, failures + 1, Some(why))
            }
        };
        if let Some(why) = &error {
            tracing::warn!(%name, "a certificate can't be ordered, and will be tried again: {why}");
            let message = format!("the certificate of {name} can't be ordered, and will be tried again");
            Note::new(Kind::CertificateOrderFailed, message).why(why).write();
        }
        self.board.stands(name, Standing { error, next: Timestamp::try_from(due).ok() });
        self.due.insert(name.clone(), (due, failures));
    }

    /// When the new certificate is due.
    async fn obtain(&self, name: &Arc<str>) -> Result<SystemTime, String> {
        let ordered =
            order::order(&self.acme, &Alone { store: &self.store, board: &self.board }, name).await?;
        let (store, file) = (self.store.clone(), name.clone());
        let saved =
            tokio::task::spawn_blocking(move || store.save(&file, &ordered.chain, &ordered.key)).await;
        let certificate = saved.map_err(|error| error.to_string())??;
        let validity = certificate.validity;
        tracing::info!(%name, until = validity.ends(), "a certificate was ordered");
        let message = format!("the certificate of {name} was ordered; it is valid until {}", validity.ends());
        Note::new(Kind::CertificateOrdered, message).write();
        self.board.pin(name, certificate);
        Ok(schedule::renewal(validity, fastrand::f64()).max(SystemTime::now() + schedule::least(validity)))
    }
}
