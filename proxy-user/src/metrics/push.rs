//! Pushes everything that `/metrics` tells to a collector, by OTLP, as often as `[metrics]` says.
//!
//! On the control side's own thread, like a scrape. Sums are cumulative, so a push that fails is not repeated: the next one
//! tells the same and more.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    config::model::{Collector, Metrics},
    control::state::ControlState,
    otlp::{
        self,
        client::{Client, ExportFault},
        proto::Message,
    },
};

/// A reload is noticed so soon.
const LOOK: Duration = Duration::from_secs(1);

/// When the daemon ends, it waits no longer for the collector.
const FAREWELL: Duration = Duration::from_secs(2);

/// What became of pushes, since the daemon was started.
#[derive(Debug, Default)]
pub struct Pushes {
    taken: AtomicU64,
    failed: AtomicU64,
    failing: Mutex<Option<String>>,
}

/// As it is configured now.
struct Pusher {
    wanted: Metrics,
    /// `None`: TLS can't be had, which was said.
    client: Option<Client>,
    due: Instant,
}

/// For as long as the daemon runs, whatever is configured.
pub async fn keep_pushing(state: Arc<ControlState>) {
    let mut pusher: Option<Pusher> = None;
    loop {
        let snapshot = state.running().map(|running| running.load_full());
        let wanted = snapshot.as_ref().and_then(|snapshot| snapshot.config.metrics.as_ref());
        if pusher.as_ref().map(|pusher| &pusher.wanted) != wanted {
            pusher = wanted.map(|wanted| Pusher::new(wanted.clone(), &state.pushes));
        }
        drop(snapshot);
        let Some(pusher) = &mut pusher else {
            sleep(LOOK).await;
            continue;
        };
        if Instant::now() < pusher.due {
            sleep_until(pusher.due.min(Instant::now() + LOOK)).await;
            continue;
        }
        // One that took long is not caught up with.
        pusher.due = Instant::now() + pusher.wanted.every;
        pusher.push(&state).await;
    }
}

/// Once more, for what has been counted since. When nothing more will be: the daemon ends.
pub async fn push_the_last(state: &ControlState) {
    let Some(running) = state.running().map(|running| running.load_full()) else { return };
    let Some(wanted) = &running.config.metrics else { return };
    let mut pusher = Pusher::new(wanted.clone(), &state.pushes);
    if timeout(FAREWELL, pusher.push(state)).await.is_err() {
        tracing::debug!("the last metrics were not taken in time");
    }
}

/// An `ExportMetricsServiceRequest`.
fn request(collector: &Collector, metrics: &Message) -> Bytes {
    let mut request = Message::default();
    request.message(1, |resource_metrics| {
        resource_metrics.message(1, |of| otlp::resource(of, collector));
        resource_metrics.message(2, |scope_metrics| {
            scope_metrics.message(1, otlp::scope);
            scope_metrics.append(metrics);
        });
    });
    request.into_bytes().into()
}

// === impl Pusher ===

impl Pusher {
    fn new(wanted: Metrics, pushes: &Pushes) -> Self {
        let client = Client::new(&wanted.collector)
            .inspect_err(|error| tracing::error!(%error, "`[metrics]` can't be used: nothing is pushed"));
        *pushes.failing.lock().unwrap_or_else(PoisonError::into_inner) =
            client.as_ref().err().map(ToString::to_string);
        Self { due: Instant::now() + wanted.every, client: client.ok(), wanted }
    }

    async fn push(&mut self, state: &ControlState) {
        if let Some(client) = &mut self.client
            && let Some(metrics) = super::measured(state).await
        {
            let outcome = client.export(request(&self.wanted.collector, &metrics)).await;
            state.pushes.ended(&self.wanted, outcome);
        }
    }
}

// === impl Pushes ===

impl Pushes {
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the collector takes nothing just now.
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told once, when it begins and when it ends.
    fn ended(&self, wanted: &Metrics, outcome: Result<(), ExportFault>) {
        let counter = if outcome.is_ok() { &self.taken } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match (&outcome, failing.is_some()) {
            (Err(fault), false) => {
                let endpoint = &wanted.collector.endpoint;
                tracing::warn!(%endpoint, "metrics can't be pushed: {fault}");
            }
            (Ok(()), true) => tracing::info!("metrics are pushed again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        *failing = outcome.err().map(|fault| fault.to_string());
    }
}
