//! A breaker through its phases.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::Slow;

const GOOD: Ended = Ended { network: false, error: false, slow: false };
const NO_ANSWER: Ended = Ended { network: true, error: true, slow: false };
const ERROR: Ended = Ended { network: false, error: true, slow: false };
const SLOW: Ended = Ended { network: false, error: false, slow: true };

fn rules() -> model::Breaker {
    model::Breaker {
        network: None,
        errors: Some(50),
        latency: None,
        over: Duration::from_secs(10),
        at_least: 10,
        open: Duration::from_secs(5),
        recover: Duration::from_secs(10),
    }
}

fn breaker() -> Breaker {
    Breaker::new(rules(), None)
}

/// Whether a request is let through; if so, how it ends.
fn request(breaker: &Breaker, now: u64, ended: Ended) -> bool {
    let (admitted, _) = breaker.admit(Moment(now), || 0.5);
    let Some(admitted) = admitted else { return false };
    breaker.ended(admitted, Some(ended), Moment(now));
    true
}

fn opened() -> Breaker {
    let breaker = breaker();
    for _ in 0..10 {
        assert!(request(&breaker, 1000, ERROR));
    }
    assert_eq!(breaker.phase(), Phase::Open(Moment(6000)));
    breaker
}

#[test]
fn it_opens_at_its_share_and_not_on_a_few_requests() {
    let breaker = breaker();
    for _ in 0..5 {
        request(&breaker, 1, ERROR);
    }
    for _ in 0..4 {
        request(&breaker, 1, GOOD);
    }
    assert_eq!(breaker.phase(), Phase::Closed, "nine requests are too few");
    request(&breaker, 2, GOOD);
    request(&breaker, 2, GOOD);
    assert_eq!(breaker.phase(), Phase::Closed, "5 of 11");
    request(&breaker, 3, ERROR);
    assert_eq!(breaker.phase(), Phase::Open(Moment(5003)), "6 of 12");
    assert_eq!(breaker.last().unwrap().why, "6 of 12 requests failed within 10s");
}

#[test]
fn each_rule_opens_it_by_itself() {
    let slow = Slow { limit: Duration::from_secs(1), quantile: 90 };
    let off = model::Breaker { errors: None, ..rules() };
    for (rules, opens, does_not) in [
        (model::Breaker { network: Some(50), ..off.clone() }, NO_ANSWER, ERROR),
        (model::Breaker { errors: Some(50), ..off.clone() }, ERROR, SLOW_BUT_UNASKED),
        (model::Breaker { latency: Some(slow), ..off }, SLOW, GOOD),
    ] {
        for (ended, open) in [(opens, true), (does_not, false)] {
            let breaker = Breaker::new(rules.clone(), None);
            (0..20).for_each(|_| _ = request(&breaker, 1, ended));
            assert_eq!(breaker.is_open(Moment(1)), open, "{rules:?}: {ended:?}");
        }
    }
}

/// Without `latency` nothing is slow.
const SLOW_BUT_UNASKED: Ended = GOOD;

#[test]
fn a_quantile_is_above_the_limit_when_more_than_the_rest_is() {
    let latency = Some(Slow { limit: Duration::from_secs(1), quantile: 90 });
    let breaker = Breaker::new(model::Breaker { errors: None, latency, ..rules() }, None);
    assert!(breaker.is_slow(Duration::from_millis(1001)) && !breaker.is_slow(Duration::from_secs(1)));
    (0..18).for_each(|_| _ = request(&breaker, 1, GOOD));
    request(&breaker, 1, SLOW);
    request(&breaker, 1, SLOW);
    assert_eq!(breaker.phase(), Phase::Closed, "a tenth is slow: the 90th percentile is not");
    request(&breaker, 1, SLOW);
    assert!(breaker.is_open(Moment(1)));
}

#[test]
fn open_it_refuses_and_then_tries_with_one_request() {
    let breaker = opened();
    assert!(!request(&breaker, 5999, GOOD));
    assert_eq!(breaker.refused(), 1);
    let (trial, _) = breaker.admit(Moment(6000), || 0.0);
    assert_eq!(trial, Some(Admitted::OnTrial));
    assert_eq!(breaker.admit(Moment(6001), || 0.0).0, None, "one at a time");
    assert_eq!(breaker.ended(Admitted::OnTrial, Some(GOOD), Moment(6100)), Some(Turn::Recovering));
}

#[test]
fn a_failed_trial_opens_it_again_and_one_without_outcome_makes_room_for_another() {
    let breaker = opened();
    breaker.admit(Moment(6000), || 0.0);
    breaker.ended(Admitted::OnTrial, Some(NO_ANSWER), Moment(6010));
    assert_eq!(breaker.phase(), Phase::Open(Moment(11_010)));
    breaker.admit(Moment(11_010), || 0.0);
    assert_eq!(breaker.ended(Admitted::OnTrial, None, Moment(11_020)), None);
    assert_eq!(breaker.admit(Moment(11_020), || 0.0).0, Some(Admitted::OnTrial));
    assert_eq!(breaker.admit(Moment(16_020), || 0.0).0, Some(Admitted::OnTrial), "the other never told");
}

#[test]
fn recovering_it_lets_a_growing_share_through() {
    let breaker = opened();
    breaker.admit(Moment(6000), || 0.0);
    breaker.ended(Admitted::OnTrial, Some(GOOD), Moment(6000));
    let share_at = |now: u64| {
        let through = |chance: u32| breaker.admit(Moment(now), || f64::from(chance) / 100.0).0.is_some();
        (0..100).filter(|chance| through(*chance)).count()
    };
    assert_eq!(share_at(6000), 10, "never none");
    assert_eq!(share_at(11_000), 50);
    assert_eq!(share_at(15_000), 90);
    assert_eq!(breaker.admit(Moment(16_000), || 1.0), (Some(Admitted::Normally), Some(Turn::Closed)));
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn what_fails_while_it_recovers_opens_it_again() {
    let breaker = opened();
    breaker.admit(Moment(6000), || 0.0);
    breaker.ended(Admitted::OnTrial, Some(GOOD), Moment(6000));
    for _ in 0..10 {
        breaker.ended(Admitted::Normally, Some(NO_ANSWER), Moment(7000));
    }
    assert_eq!(breaker.phase(), Phase::Open(Moment(12_000)));
}

#[test]
fn who_was_on_the_way_before_it_opened_says_nothing() {
    let breaker = opened();
    assert_eq!(breaker.ended(Admitted::Normally, Some(GOOD), Moment(2000)), None);
    breaker.admit(Moment(6000), || 0.0);
    assert_eq!(breaker.ended(Admitted::Normally, Some(GOOD), Moment(6001)), None);
    assert!(matches!(breaker.phase(), Phase::Trial(_)));
}

#[test]
fn its_state_survives_a_change_of_its_rules() {
    let before = opened();
    for rules in [
        model::Breaker { errors: Some(10), ..rules() },
        model::Breaker { over: Duration::from_secs(20), ..rules() },
    ] {
        let after = Breaker::new(rules, Some(&before));
        assert!(after.is_open(Moment(5999)));
        assert_eq!(after.last().unwrap().why, before.last().unwrap().why);
    }
}

proptest! {
    /// Whatever happened, a service that is well again gets all of its requests again.
    #[test]
    fn it_never_stays_open(ends in prop::collection::vec((0_u8..4, 0_u64..3000), 0..300)) {
        let breaker = breaker();
        let mut now = 1;
        for (end, later) in ends {
            now += later;
            request(&breaker, now, [GOOD, ERROR, NO_ANSWER, SLOW][usize::from(end)]);
        }
        for _ in 0..400 {
            now += 100;
            request(&breaker, now, GOOD);
        }
        prop_assert_eq!(breaker.phase(), Phase::Closed);
    }
}
