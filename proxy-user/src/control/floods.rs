//! Tells of floods of SYNs: when one begins, when it is over. The gate knows by itself, and acts by itself; this only
//! looks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::control::kernel_side::KernelSide;
use crate::journal::{Kind, Note};

/// How late a beginning may be told.
const EVERY: Duration = Duration::from_secs(1);

pub struct Floods {
    look: Interval,
    known: BTreeSet<Arc<str>>,
}

impl Floods {
    /// Needs a runtime around it.
    pub fn watch() -> Self {
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { look, known: BTreeSet::new() }
    }

    /// Time to look.
    pub async fn due(&mut self) {
        self.look.tick().await;
    }

    /// Looks, and says what has changed. While the kernel side is being changed there is nothing to see.
    pub fn tell(&mut self, kernel: &KernelSide) {
        let Some(flooded) = kernel.floods() else { return };
        for entrypoint in flooded.difference(&self.known) {
            tracing::warn!(
                %entrypoint,
                "a flood of SYNs has begun: the gate has every new connection proved by a SYN cookie"
            );
            let message = format!(
                "a flood of SYNs has begun at `{entrypoint}`: new connections are proved by SYN cookies"
            );
            Note::new(Kind::SynFloodBegun, message).entrypoint(&**entrypoint).write();
        }
        for entrypoint in self.known.difference(&flooded) {
            tracing::info!(%entrypoint, "the flood of SYNs is over: new connections are passed on as they come");
            let message = format!("the flood of SYNs at `{entrypoint}` is over");
            Note::new(Kind::SynFloodOver, message).entrypoint(&**entrypoint).write();
        }
        self.known = flooded;
    }
}
