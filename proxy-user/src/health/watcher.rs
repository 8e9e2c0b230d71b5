//! One watcher per server: probes at its interval, at once when traffic raises a suspicion, and makes the
//! tracker's conclusions known. Runs on the control side.
//!
//! Of one server there is one probe at a time. Of all servers, so many are under way that a thousand which hang don't use
//! up the process's descriptors; whoever looks into a suspicion doesn't wait for the others.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use crate::health::{
    Health, Status,
    probe::{self, Target},
    tracker::{Circumstances, Thresholds, Tracker, Transition},
};
use crate::journal::{Kind, Note};

/// Probes under way that nobody waits for.
const MOST_AT_A_TIME: usize = 256;

static ROOM: Semaphore = Semaphore::const_new(MOST_AT_A_TIME);

/// A running watcher; dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    task: tokio::task::JoinHandle<()>,
    first: watch::Receiver<bool>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Starts to watch. `service` is for the log only.
    pub fn start(service: Arc<str>, target: Target, health: Arc<Health>) -> Self {
        let (probed, first) = watch::channel(false);
        let task = tokio::task::spawn_local(watch_server(service, target, health, probed));
        Self { task, first }
    }

    /// Waits until the first probe has spoken.
    pub fn first_probe(&self) -> impl Future<Output = ()> + use<> {
        let mut first = self.first.clone();
        async move {
            // An error means that the task is gone: then nothing more will come.
            let _ = first.wait_for(|probed| *probed).await;
        }
    }
}

async fn watch_server(service: Arc<str>, target: Target, health: Arc<Health>, probed: watch::Sender<bool>) {
    let thresholds =
        Thresholds { fall: target.check.fall, rise: target.check.rise, least: target.check.least };
    let mut tracker = Tracker::new(health.verdict());
    let mut first = true;
    loop {
        let room = match health.is_suspected() {
            true => None,
            false => tokio::select! {
                biased;
                () = health.wake.notified() => None,
                room = ROOM.acquire() => room.ok(),
            },
        };
        let suspected = health.is_suspected();
        let began = Instant::now();
        let probe = probe::probe(&target, &health).await;
        drop(room);
        if probe.outcome.is_ok() {
            health.probe_took.store(took(began), Ordering::Relaxed);
        }
        let circumstances = Circumstances { last_byte: health.last_byte(), suspected };
        if let Some(mut transition) = tracker.observe(&probe, circumstances, thresholds) {
            if transition.to == Status::Down && health.unacknowledged.load(Ordering::Relaxed) {
                transition.why += "; its host doesn't acknowledge what is sent to it";
            }
            announce(&service, &target, &transition);
            health.change(transition.to, transition.silent, transition.why);
        }
        health.probed(probe.outcome.is_ok());
        probed.send_replace(true);

        if suspected && tracker.wants_second_opinion() {
            continue;
        }
        if suspected {
            // A suspicion that came while this probe was under way stays, and wakes the next one at once.
            health.suspected.store(false, Ordering::Release);
            health.unacknowledged.store(false, Ordering::Relaxed);
        }
        let pause = match (std::mem::take(&mut first), tracker.is_in_transition()) {
            (_, true) => jittered(target.check.fast),
            // All began at once: from here on they are spread over the interval.
            (true, false) => target.check.every.mul_f64(fastrand::f64()),
            (false, false) => jittered(target.check.every),
        };
        // Either the interval passes, or a suspicion comes.
        let _ = timeout(pause, health.wake.notified()).await;
    }
}

fn took(began: Instant) -> u32 {
    u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX).saturating_add(1)
}

fn announce(service: &str, target: &Target, transition: &Transition) {
    let server = target.addr;
    let note =
        |kind, message| Note::new(kind, message).service(service).server(server).why(&transition.why).write();
    match transition.to {
        Status::Up => {
            tracing::info!(service, %server, why = transition.why, "server is up");
            note(Kind::ServerUp, format!("server {server} of `{service}` is up"));
        }
        Status::Down => {
            tracing::warn!(service, %server, why = transition.why, "server is down");
            note(Kind::ServerDown, format!("server {server} of `{service}` is down"));
        }
        Status::Starting | Status::Unchecked | Status::Ejected => {}
    }
}

/// The interval, up to a tenth shorter: so that the probes of many servers (and of many edge hosts) don't march
/// in step, and recovery never takes longer than was written.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(1.0 - 0.1 * fastrand::f64())
}
