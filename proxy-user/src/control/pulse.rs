//! Keep-alives for systemd's watchdog (`WatchdogSec=` in the unit).
//!
//! They come from the control loop, so a loop that hangs sends none; and only as long as every worker ticks, so one that
//! is stuck ends the daemon too, and systemd starts a new one. The gate stays meanwhile.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{clock::Moment, control::state::ControlState};

/// So many keep-alives in the time that systemd waits for one.
const OFTEN: u32 = 4;

pub struct Pulse(Option<Beat>);

struct Beat {
    look: Interval,
    /// A worker that has been silent for so many milliseconds is stuck.
    longest: u64,
    told: bool,
}

impl Pulse {
    /// As systemd asked for it; nothing, if it didn't. Needs a runtime around it.
    pub fn as_asked() -> Self {
        Self::every(sd_notify::watchdog_enabled())
    }

    fn every(timeout: Option<Duration>) -> Self {
        let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else { return Self(None) };
        let mut look = interval((timeout / OFTEN).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let longest = u64::try_from((timeout / 2).as_millis()).unwrap_or(u64::MAX);
        Self(Some(Beat { look, longest, told: false }))
    }

    /// Time for a keep-alive.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(beat) => _ = beat.look.tick().await,
            None => std::future::pending().await,
        }
    }

    /// Sends one, if all is well.
    pub fn beat(&mut self, state: &ControlState) {
        let Some(beat) = &mut self.0 else { return };
        match stuck(&state.beats(), Moment::now(), beat.longest) {
            None => {
                beat.told = false;
                super::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            Some(worker) if !beat.told => {
                beat.told = true;
                tracing::error!(
                    worker,
                    "a worker is stuck: systemd gets no keep-alives, and will start weir anew"
                );
            }
            Some(_) => {}
        }
    }
}

/// The first worker that has not ticked for longer than `longest` milliseconds.
fn stuck(beats: &[Moment], now: Moment, longest: u64) -> Option<usize> {
    beats.iter().position(|beat| now.since(*beat) > longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_when_it_has_not_ticked_for_half_the_time() {
        let beats = [Moment(900), Moment(400)];
        assert_eq!(stuck(&beats, Moment(1000), 600), None);
        assert_eq!(stuck(&beats, Moment(1001), 600), Some(1));
    }

    #[tokio::test]
    async fn nobody_who_did_not_ask_gets_keep_alives() {
        assert!(Pulse::every(None).0.is_none());
        assert_eq!(Pulse::every(Some(Duration::from_secs(30))).0.map(|beat| beat.longest), Some(15_000));
    }
}
