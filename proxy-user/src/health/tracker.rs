//! What a row of probes makes of a server. Pure: outcomes and moments are arguments.
//!
//! - The first probe of all decides alone.
//! - Up: `fall` failures in a row take the server out; when live traffic raised the suspicion, two are enough.
//! - Down: `rise` successes in a row bring it back.
//! - A probe that got no answer says nothing against a server that answered somebody else meanwhile.

use crate::{clock::Moment, health::Status};

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFault {
    #[error("the connection was refused")]
    Refused,
    #[error("no connection within {0} ms")]
    ConnectTimeout(u64),
    #[error("no answer within {0} ms")]
    Silent(u64),
    #[error("the probe was answered with status {0}")]
    Status(u16),
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server spoke, and not as it should have.
    #[error("{0}")]
    Unexpected(String),
}

/// A finished probe.
#[derive(Debug)]
pub struct Probe {
    pub began: Moment,
    pub outcome: Result<(), ProbeFault>,
}

/// What had been heard of the server when the probe ended.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    pub last_byte: Moment,
    pub suspected: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    pub fall: u32,
    pub rise: u32,
}

/// A change of status that must be made known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub to: Status,
    pub why: String,
    /// Down because nothing came back: whoever waits for an answer waits in vain. After any other fault the kernel
    /// tells those who wait, or the server may still be finishing what it has.
    pub silent: bool,
}

#[derive(Debug)]
pub struct Tracker {
    status: Status,
    failures: u32,
    successes: u32,
}

// === impl ProbeFault ===

impl ProbeFault {
    fn is_silence(&self) -> bool {
        match self {
            Self::Silent(_) | Self::ConnectTimeout(_) => true,
            Self::Refused | Self::Status(_) | Self::Tls(_) | Self::Broken(_) | Self::Unexpected(_) => false,
        }
    }
}

// === impl Tracker ===

impl Tracker {
    pub fn new(status: Status) -> Self {
        Self { status, failures: 0, successes: 0 }
    }

    /// Whether another probe should follow at once: a suspicion stands and one failure has confirmed it.
    pub fn wants_second_opinion(&self) -> bool {
        self.status == Status::Up && self.failures > 0
    }

    /// Whether the last probes say otherwise than the verdict, and more of them make another one.
    pub fn is_in_transition(&self) -> bool {
        match self.status {
            Status::Up => self.failures > 0,
            Status::Down => self.successes > 0,
            Status::Starting | Status::Unchecked | Status::Ejected => false,
        }
    }

    pub fn observe(
        &mut self,
        probe: &Probe,
        circumstances: Circumstances,
        thresholds: Thresholds,
    ) -> Option<Transition> {
        match &probe.outcome {
            Ok(()) => self.succeeded(thresholds),
            Err(fault) if self.vetoed(fault, probe.began, circumstances) => {
                self.failures = 0;
                None
            }
            Err(fault) => self.failed(fault, circumstances, thresholds),
        }
    }

    fn vetoed(&self, fault: &ProbeFault, began: Moment, circumstances: Circumstances) -> bool {
        self.status == Status::Up && fault.is_silence() && circumstances.last_byte > began
    }

    fn succeeded(&mut self, thresholds: Thresholds) -> Option<Transition> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let why = match self.status {
            Status::Starting => "the first probe succeeded".to_owned(),
            Status::Down if self.successes >= thresholds.rise => {
                format!("{} probes in a row succeeded", self.successes)
            }
            Status::Down | Status::Up | Status::Unchecked | Status::Ejected => return None,
        };
        self.status = Status::Up;
        Some(Transition { to: Status::Up, why, silent: false })
    }

    fn failed(
        &mut self,
        fault: &ProbeFault,
        circumstances: Circumstances,
        thresholds: Thresholds,
    ) -> Option<Transition> {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let enough = match self.status {
            Status::Starting => 1,
            Status::Up if circumstances.suspected => thresholds.fall.min(2),
            Status::Up => thresholds.fall,
            Status::Down | Status::Unchecked | Status::Ejected => return None,
        };
        if self.failures < enough {
            return None;
        }
        self.status = Status::Down;
        Some(Transition { to: Status::Down, why: fault.to_string(), silent: fault.is_silence() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { fall: 3, rise: 2 };
    const QUIET: Circumstances = Circumstances { last_byte: Moment(0), suspected: false };
    const SUSPECTED: Circumstances = Circumstances { last_byte: Moment(0), suspected: true };

    fn ok() -> Probe {
        Probe { began: Moment(100), outcome: Ok(()) }
    }

    fn silent() -> Probe {
        Probe { began: Moment(100), outcome: Err(ProbeFault::Silent(250)) }
    }

    fn refused() -> Probe {
        Probe { began: Moment(100), outcome: Err(ProbeFault::Refused) }
    }

    /// The statuses that a row of probes leads to, from `status` on.
    fn row(status: Status, probes: &[(Probe, Circumstances)]) -> Vec<Option<Status>> {
        let mut tracker = Tracker::new(status);
        probes
            .iter()
            .map(|(probe, seen)| tracker.observe(probe, *seen, THRESHOLDS).map(|change| change.to))
            .collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(row(Status::Starting, &[(ok(), QUIET)]), [Some(Status::Up)]);
        assert_eq!(row(Status::Starting, &[(refused(), QUIET)]), [Some(Status::Down)]);
    }

    #[test]
    fn only_failures_in_a_row_take_a_server_out() {
        let probes = [(refused(), QUIET), (refused(), QUIET), (ok(), QUIET), (refused(), QUIET)];
        assert_eq!(row(Status::Up, &probes), [None, None, None, None]);
        let probes = [(refused(), QUIET), (refused(), QUIET), (refused(), QUIET)];
        assert_eq!(row(Status::Up, &probes), [None, None, Some(Status::Down)]);
    }

    #[test]
    fn a_suspicion_needs_two_failures_only() {
        let probes = [(silent(), SUSPECTED), (silent(), SUSPECTED)];
        assert_eq!(row(Status::Up, &probes), [None, Some(Status::Down)]);
    }

    #[test]
    fn only_successes_in_a_row_bring_a_server_back() {
        let probes = [(ok(), QUIET), (refused(), QUIET), (ok(), QUIET), (ok(), QUIET)];
        assert_eq!(row(Status::Down, &probes), [None, None, None, Some(Status::Up)]);
    }

    #[test]
    fn it_is_in_transition_from_the_first_probe_that_says_otherwise_to_the_verdict() {
        let mut tracker = Tracker::new(Status::Up);
        let mut after = |probe| {
            tracker.observe(&probe, QUIET, THRESHOLDS);
            tracker.is_in_transition()
        };
        assert_eq!([refused(), refused(), refused()].map(&mut after), [true, true, false]);
        assert_eq!(
            [refused(), ok(), refused(), ok(), ok()].map(&mut after),
            [false, true, false, true, false]
        );
    }

    #[test]
    fn live_traffic_vetoes_a_probe_that_was_not_answered() {
        let answering = Circumstances { last_byte: Moment(101), suspected: true };
        let probes = [(silent(), answering), (silent(), answering), (silent(), answering)];
        assert_eq!(row(Status::Up, &probes), [None, None, None]);
    }

    #[test]
    fn live_traffic_does_not_veto_what_the_server_said_itself() {
        let answering = Circumstances { last_byte: Moment(101), suspected: true };
        let probes = [(refused(), answering), (refused(), answering)];
        assert_eq!(row(Status::Up, &probes), [None, Some(Status::Down)]);
    }

    #[test]
    fn only_silence_says_that_waiting_is_in_vain() {
        for (probe, silent) in [(silent(), true), (refused(), false)] {
            let change = Tracker::new(Status::Starting).observe(&probe, QUIET, THRESHOLDS).unwrap();
            assert_eq!(change.silent, silent, "{}", change.why);
        }
    }
}
