//! When a connection that the kernel carries has ended, and how. Pure.

use std::time::Duration;

use proxy_common::translate::{Flow, seen};
use serde::Serialize;

/// How long an ended connection is carried on: until nothing of it is sent again that anybody waits for.
pub const LINGER: Duration = Duration::from_secs(10);

/// For how long a connection may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without a packet in either direction.
    pub idle: Duration,
    /// In all.
    pub lifetime: Option<Duration>,
    pub linger: Duration,
}

impl Limits {
    /// Those under which it was handed over, where that is written down with it.
    #[must_use]
    pub fn noted_in(flow: &Flow, otherwise: Self) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        match flow.idle {
            0 => otherwise,
            idle => Self {
                idle: seconds(idle),
                lifetime: (flow.lifetime != 0).then(|| seconds(flow.lifetime)),
                linger: otherwise.linger,
            },
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By both, in order; this one first.
    Closed(Who),
    Reset(Who),
    /// It was forgotten: its next packet is answered with a reset.
    Idle,
    /// Likewise.
    Lifetime,
    /// The server never acknowledged what it was sent at first.
    Unanswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Client,
    Server,
}

/// `None`: it goes on. `up` is the client's direction. Times are in nanoseconds.
#[must_use]
pub fn ending(up: &Flow, down: &Flow, limits: &Limits, now: u64) -> Option<How> {
    let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
    let quiet = since(up.last.max(down.last));
    if quiet >= limits.linger {
        if up.is_done() && down.is_done() {
            return Some(closed(up));
        }
        if up.seen & down.seen & seen::RESET != 0 {
            let client = up.seen & seen::SENT_RESET != 0;
            return Some(How::Reset(if client { Who::Client } else { Who::Server }));
        }
    }
    if quiet >= limits.idle {
        return Some(How::Idle);
    }
    let is_over = limits.lifetime.is_some_and(|lifetime| since(up.begun) >= lifetime);
    is_over.then_some(How::Lifetime)
}

/// In order: who began.
#[must_use]
pub fn closed(up: &Flow) -> How {
    How::Closed(if up.seen & seen::ENDED_FIRST != 0 { Who::Client } else { Who::Server })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { idle: Duration::from_secs(100), lifetime: Some(Duration::from_secs(1000)), linger: LINGER };
    const DONE: u32 = seen::FIN | seen::PEER_FIN | seen::PEER_FIN_ACKED;

    fn at(seconds: u64) -> u64 {
        seconds * 1_000_000_000
    }

    fn flow(seen: u32, last: u64) -> Flow {
        Flow { seen, last: at(last), begun: at(1), ..Flow::default() }
    }

    #[test]
    fn a_connection_ends_when_both_have_ended_it_and_nothing_comes_any_more() {
        let (up, down) = (flow(DONE | seen::ENDED_FIRST, 5), flow(DONE, 6));
        assert_eq!(ending(&up, &down, &LIMITS, at(15)), None);
        assert_eq!(ending(&up, &down, &LIMITS, at(16)), Some(How::Closed(Who::Client)));
        assert_eq!(ending(&flow(DONE, 5), &down, &LIMITS, at(16)), Some(How::Closed(Who::Server)));
    }

    #[test]
    fn limits_are_those_under_which_it_was_handed_over() {
        let noted = |idle, lifetime| Limits::noted_in(&Flow { idle, lifetime, ..Flow::default() }, LIMITS);
        let of = |idle, lifetime| Limits {
            idle: Duration::from_secs(idle),
            lifetime: Option::map(lifetime, Duration::from_secs),
            linger: LINGER,
        };
        assert_eq!(noted(0, 5), LIMITS);
        assert_eq!(noted(7, 0), of(7, None));
        assert_eq!(noted(7, 90), of(7, Some(90)));
    }

    #[test]
    fn half_of_an_end_is_none() {
        for (up, down) in [(seen::FIN, DONE), (DONE, seen::PEER_FIN), (seen::RESET, 0)] {
            assert_eq!(ending(&flow(up, 5), &flow(down, 5), &LIMITS, at(90)), None);
        }
    }

    #[test]
    fn a_reset_ends_it_unless_something_came_after_it() {
        let (up, down) = (flow(seen::RESET, 5), flow(seen::RESET | seen::SENT_RESET, 5));
        assert_eq!(ending(&up, &down, &LIMITS, at(15)), Some(How::Reset(Who::Server)));
        assert_eq!(ending(&down, &up, &LIMITS, at(15)), Some(How::Reset(Who::Client)));
        assert_eq!(ending(&flow(0, 6), &down, &LIMITS, at(17)), None);
    }

    #[test]
    fn one_that_is_idle_or_old_ends() {
        assert_eq!(ending(&flow(0, 5), &flow(0, 50), &LIMITS, at(149)), None);
        assert_eq!(ending(&flow(0, 5), &flow(0, 50), &LIMITS, at(150)), Some(How::Idle));
        assert_eq!(ending(&flow(0, 1000), &flow(0, 1000), &LIMITS, at(1001)), Some(How::Lifetime));
    }
}
