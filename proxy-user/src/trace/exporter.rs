//! Sends spans to a collector: a thread of its own with a bounded queue before it, OTLP over gRPC or HTTP behind it.
//!
//! The collector is never waited for by a request. While it can't be reached, spans wait here; what finds no room is
//! dropped and counted.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use super::{otlp, span::Record};
use crate::{
    access_log::sink::settle,
    config::model::Collector,
    otlp::client::{Client, ExportFault},
};

/// Requests whose spans may wait to be sent.
const QUEUE: usize = 4096;

/// So many requests' spans are sent at a time, or those that came within [`GATHER`].
const BATCH: usize = 256;
const GATHER: Duration = Duration::from_secs(1);

/// After a failure the next try comes so late, then twice as late, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A collector that refuses a batch so often gets the next one.
const TRIES: u32 = 6;

/// When the daemon ends, it waits no longer for the last spans.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Exporter {
    queue: SyncSender<Order>,
    state: Arc<State>,
    thread: thread::Thread,
}

#[derive(Debug, Default)]
struct State {
    /// Spans.
    dropped: AtomicU64,
    exported: AtomicU64,
    /// Nobody waits for the collector any more.
    hurry: AtomicBool,
    failing: Mutex<Option<String>>,
}

#[derive(Debug)]
enum Order {
    Export(Box<Record>),
    Settle(SyncSender<()>),
}

impl Exporter {
    pub fn start(collector: &Collector) -> io::Result<Self> {
        let client = Client::new(collector).map_err(io::Error::other)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (queue, orders) = sync_channel(QUEUE);
        let state = Arc::new(State::default());
        let sender = Sender { collector: collector.clone(), client, runtime, state: state.clone() };
        let thread = thread::Builder::new().name("tracing".into()).spawn(move || sender.follow(&orders))?;
        Ok(Self { queue, state, thread: thread.thread().clone() })
    }

    /// Never waits.
    pub fn take(&self, record: Box<Record>) {
        if let Err(
            TrySendError::Full(Order::Export(record)) | TrySendError::Disconnected(Order::Export(record)),
        ) = self.queue.try_send(Order::Export(record))
        {
            self.state.dropped.fetch_add(record.spans(), Ordering::Relaxed);
        }
    }

    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    pub fn exported(&self) -> u64 {
        self.state.exported.load(Ordering::Relaxed)
    }

    pub fn failing(&self) -> Option<String> {
        self.state.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until everything so far is sent, but not for a collector that can't be reached.
    pub fn settle(&self) {
        self.state.hurry.store(true, Ordering::Relaxed);
        self.thread.unpark();
        settle(&self.queue, Order::Settle, SETTLE);
    }
}

impl Drop for Exporter {
    /// Its thread goes when it has sent what waits, or can't.
    fn drop(&mut self) {
        self.state.hurry.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// The exporter's thread.
struct Sender {
    collector: Collector,
    client: Client,
    runtime: Runtime,
    state: Arc<State>,
}

impl Sender {
    fn follow(mut self, orders: &Receiver<Order>) {
        let mut batch = Vec::new();
        let mut since = Instant::now();
        loop {
            let left = if batch.is_empty() { GATHER } else { GATHER.saturating_sub(since.elapsed()) };
            let order = orders.recv_timeout(left);
            if let Ok(Order::Export(record)) = order {
                if batch.is_empty() {
                    since = Instant::now();
                }
                batch.push(*record);
                if batch.len() < BATCH && since.elapsed() < GATHER {
                    continue;
                }
                self.send(&mut batch);
                continue;
            }
            self.send(&mut batch);
            match order {
                Ok(Order::Settle(done)) => {
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Export(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Sends them all, or drops them all.
    fn send(&mut self, batch: &mut Vec<Record>) {
        if batch.is_empty() {
            return;
        }
        let spans: u64 = batch.iter().map(Record::spans).sum();
        let request = bytes::Bytes::from(otlp::request(&self.collector, batch));
        batch.clear();
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES).rev() {
            let sent = self.runtime.block_on(self.client.export(request.clone()));
            let Err(fault) = sent else {
                self.state.exported.fetch_add(spans, Ordering::Relaxed);
                self.fails(None);
                return;
            };
            let again = fault.is_worth_another_try() && left > 0;
            self.fails(Some(&fault));
            if !again || self.state.hurry.load(Ordering::Relaxed) {
                break;
            }
            thread::park_timeout(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        self.state.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// Told once, when it begins and when it ends.
    fn fails(&self, fault: Option<&ExportFault>) {
        let mut failing = self.state.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match (fault, failing.is_some()) {
            (Some(fault), false) => {
                tracing::warn!(endpoint = %self.collector.endpoint, "spans can't be sent: {fault}");
            }
            (None, true) => tracing::info!("spans are sent again"),
            (Some(_), true) | (None, false) => {}
        }
        *failing = fault.map(ToString::to_string);
    }
}
