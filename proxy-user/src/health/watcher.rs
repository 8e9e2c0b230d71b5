//! One watcher per server: probes at its interval, at once when traffic raises a suspicion, and makes the
//! tracker's conclusions known. Runs on the control side.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::health::{
    Health,
    probe::{self, Target},
    tracker::{Circumstances, Thresholds, Tracker, Transition},
};

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
    let thresholds = Thresholds { fall: target.check.fall, rise: target.check.rise };
    let mut tracker = Tracker::new(health.status());
    loop {
        let suspected = health.is_suspected();
        let probe = probe::probe(&target, &health).await;
        let circumstances = Circumstances { last_byte: health.last_byte(), suspected };
        if let Some(transition) = tracker.observe(&probe, circumstances, thresholds) {
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
        }
        // Either the interval passes, or a suspicion comes.
        let _ = timeout(jittered(target.check.every), health.wake.notified()).await;
    }
}

fn announce(service: &str, target: &Target, transition: &Transition) {
    use crate::health::Status;
    let server = target.addr;
    match transition.to {
        Status::Up => tracing::info!(service, %server, why = transition.why, "server is up"),
        Status::Down => tracing::warn!(service, %server, why = transition.why, "server is down"),
        Status::Starting | Status::Unchecked => {}
    }
}

/// The interval, up to a tenth shorter: so that the probes of many servers (and of many edge hosts) don't march
/// in step, and recovery never takes longer than was written.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(1.0 - 0.1 * fastrand::f64())
}
