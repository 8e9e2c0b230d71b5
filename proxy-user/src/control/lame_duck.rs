//! Between SIGTERM and the end: for a time (`[shutdown] delay`) this host only says that it is about to go, and serves whoever comes
//! all the same. Load balancers look but so often, and what they send meanwhile would find nobody.

use tokio::time::{Instant, sleep_until};

use super::{notify, state::ControlState};
use crate::{
    journal::{Kind, Note},
    snapshot::Snapshot,
};

/// What is left of that time; nothing, while nobody has asked it to end.
#[derive(Debug, Default)]
pub struct LameDuck {
    over: Option<Instant>,
}

impl LameDuck {
    /// SIGTERM has come. Says whether it is to end at once: nothing is to be waited for, or that was said for the second time.
    pub fn begin(&mut self, running: &Snapshot, state: &ControlState) -> bool {
        let delay = running.config.shutdown.delay;
        if delay.is_zero() || self.over.is_some() {
            return true;
        }
        self.over = Some(Instant::now() + delay);
        state.drains();
        // As `weir drain --host` does it: clients are told to come back by another way.
        running.drains.host.leave();
        notify(&[sd_notify::NotifyState::Stopping]);
        let message = format!("ending in {} s: /ping fails, and whoever comes is served", delay.as_secs());
        tracing::info!("{message}");
        Note::new(Kind::Ending, message).write();
        false
    }

    /// Resolves when the time is over.
    pub async fn over(&self) {
        match self.over {
            Some(over) => sleep_until(over).await,
            None => std::future::pending().await,
        }
    }
}
