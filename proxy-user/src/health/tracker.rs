//! What a row of probes makes of a server. Pure: outcomes and moments are arguments.
//!
//! - The first probe of all decides alone.
//! - Up: `fall` failures in a row take the server out; when live traffic raised the suspicion, two are enough.
//! - Down: `rise` successes in a row bring it back.
//! - With `least`, so many of the last [`Recent::MOST`] probes keep a server up, whatever the last few say.
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
    /// In percent.
    pub least: Option<u8>,
}

/// How the last probes went: a bit for each, the last one lowest.
#[derive(Debug, Default)]
struct Recent {
    good: u32,
    count: u32,
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
    /// Since the status last changed.
    recent: Recent,
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

// === impl Recent ===

impl Recent {
    const MOST: u32 = 20;

    fn note(&mut self, good: bool) {
        self.good = (self.good << 1 | u32::from(good)) & ((1 << Self::MOST) - 1);
        self.count = (self.count + 1).min(Self::MOST);
    }

    /// Whether so many percent went well. As long as there were few, those that would be before them count as good: it was
    /// up.
    fn has(&self, least: u8) -> bool {
        let good = self.good.count_ones() + Self::MOST - self.count;
        good * 100 >= u32::from(least) * Self::MOST
    }
}

// === impl Tracker ===

impl Tracker {
    pub fn new(status: Status) -> Self {
        Self { status, failures: 0, successes: 0, recent: Recent::default() }
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
        let vetoed = |fault| self.vetoed(fault, probe.began, circumstances);
        let is_vetoed = probe.outcome.as_ref().is_err_and(vetoed);
        self.recent.note(is_vetoed || probe.outcome.is_ok());
        let transition = match &probe.outcome {
            Ok(()) => self.succeeded(thresholds),
            Err(_) if is_vetoed => {
                self.failures = 0;
                None
            }
            Err(fault) => self.failed(fault, circumstances, thresholds),
        };
        if transition.is_some() {
            self.recent = Recent::default();
        }
        transition
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
        let kept = self.status == Status::Up && thresholds.least.is_some_and(|least| self.recent.has(least));
        if self.failures < enough || kept {
            return None;
        }
        self.status = Status::Down;
        Some(Transition { to: Status::Down, why: fault.to_string(), silent: fault.is_silence() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { fall: 3, rise: 2, least: None };
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

    /// One of ten instances behind an address is bad, and probes meet it again and again.
    #[test]
    fn a_few_bad_instances_of_many_take_nobody_out_but_a_dead_platform_goes() {
        let thresholds = Thresholds { fall: 2, rise: 2, least: Some(50) };
        let mut tracker = Tracker::new(Status::Up);
        for nth in 0..1000 {
            let probe = if nth % 10 < 3 { refused() } else { ok() };
            assert_eq!(tracker.observe(&probe, SUSPECTED, thresholds), None, "{nth}");
        }
        let needed = (1..).find(|_| tracker.observe(&refused(), QUIET, thresholds).is_some()).unwrap();
        assert!((5..=11).contains(&needed), "{needed}");
        for probe in [ok(), ok()] {
            tracker.observe(&probe, QUIET, thresholds);
        }
        assert_eq!(tracker.observe(&refused(), QUIET, thresholds), None);
        assert_eq!(
            tracker.observe(&refused(), QUIET, thresholds),
            None,
            "what was before it came up is over"
        );
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
