//! The judge in simulated runs: traffic by chance, time by hand.

use super::*;

fn plan(steps: &[u32]) -> Plan {
    Plan {
        variant: "app".into(),
        against: "old".into(),
        steps: steps.to_vec(),
        every: Duration::from_secs(600),
        margin_errors: 50,
        margin_latency: 2000,
        confidence: 9500,
        min_samples: 100,
    }
}

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn later(from: Timestamp, seconds: u64) -> Timestamp {
    from + Duration::from_secs(seconds)
}

/// How a variant behaves: its error ratio, and how its latencies spread.
#[derive(Clone, Copy)]
struct Behaviour {
    errors: f64,
    median_ms: f64,
    /// Every so many answers are ten times slower.
    slow: f64,
}

const WELL: Behaviour = Behaviour { errors: 0.002, median_ms: 20.0, slow: 0.01 };

/// What a variant has counted, by chance.
#[derive(Default)]
struct Traffic {
    figures: super::super::figures::Figures,
}

impl Traffic {
    fn take(&self, requests: u64, how: Behaviour, random: &mut fastrand::Rng) {
        for _ in 0..requests {
            if random.f64() < how.errors {
                self.figures.failed(super::super::figures::Failure::Status);
                continue;
            }
            // Roughly log-normal: the product of some uniform ones.
            let spread: f64 = (0..4).map(|_| 0.6 + 0.8 * random.f64()).product();
            let slow = if random.f64() < how.slow { 10.0 } else { 1.0 };
            self.figures.answered(Duration::from_secs_f64(how.median_ms * spread * slow / 1000.0));
        }
    }
}

/// Runs a plan with so many requests a step to both variants together; returns how it ended, and how many requests the new one
/// had had.
fn run(plan: Plan, per_step: u64, new: Behaviour, old: Behaviour, seed: u64) -> (State, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (news, olds) = (Traffic::default(), Traffic::default());
    let mut now = start();
    let mut judge = Judge::new(plan, now);
    judge.look(now, &news.figures.counted(), &olds.figures.counted());
    for _ in 0..1000 {
        if !judge.is_running() {
            break;
        }
        let share = f64::from(judge.share()) / 100.0;
        let part = per_step as f64 / 10.0;
        news.take((part * share) as u64, new, &mut random);
        olds.take((part * (1.0 - share)) as u64, old, &mut random);
        now = later(now, 60);
        let decision = judge.look(now, &news.figures.counted(), &olds.figures.counted());
        if let Decision::Shift(_) = decision {
            // What runs the judge looks again at once, so that the step begins with its own count.
            judge.look(now, &news.figures.counted(), &olds.figures.counted());
        }
    }
    (judge.state.clone(), news.figures.counted().requests())
}

fn went_back(state: &State) -> bool {
    matches!(state, State::WentBack { .. })
}

#[test]
fn equal_variants_are_hardly_ever_told_apart() {
    let runs = 200;
    let alarms =
        (0..runs).filter(|seed| went_back(&run(plan(&[5, 20, 50, 100]), 4_000, WELL, WELL, *seed).0));
    // With a confidence of 95 %, ten of two hundred may be; the tests together are stricter.
    assert!(alarms.count() <= 10);
}

#[test]
fn a_variant_just_within_its_margins_is_no_false_alarm_either() {
    let new = Behaviour { errors: WELL.errors + 0.005, median_ms: WELL.median_ms * 1.2, slow: WELL.slow };
    let runs = 100;
    let alarms = (0..runs).filter(|seed| went_back(&run(plan(&[20, 50]), 4_000, new, WELL, *seed).0));
    assert!(alarms.count() <= 5);
}

#[test]
fn real_degradation_is_caught_before_it_has_all_requests() {
    for (what, new) in [
        ("errors", Behaviour { errors: 0.10, ..WELL }),
        ("slow in general", Behaviour { median_ms: WELL.median_ms * 1.6, ..WELL }),
        ("a long tail", Behaviour { slow: 0.05, ..WELL }),
        ("all fail", Behaviour { errors: 1.0, ..WELL }),
    ] {
        for seed in 0..20 {
            let (state, _) = run(plan(&[5, 20, 50, 100]), 20_000, new, WELL, seed);
            assert!(went_back(&state), "{what}, run {seed}: {state:?}");
        }
    }
}

#[test]
fn a_variant_that_fails_every_request_is_caught_within_its_first_ones() {
    let (state, requests) = run(plan(&[1, 100]), 100_000, Behaviour { errors: 1.0, ..WELL }, WELL, 1);
    assert!(went_back(&state) && requests <= 200, "{requests}: {state:?}");
}

#[test]
fn a_good_variant_gets_everything_step_by_step() {
    let (state, _) = run(plan(&[10, 50, 100]), 5_000, WELL, WELL, 3);
    assert!(matches!(state, State::Finished { .. }), "{state:?}");
}

#[test]
fn without_enough_requests_it_waits_and_says_so() {
    let mut judge = Judge::new(plan(&[10, 100]), start());
    let mut random = fastrand::Rng::with_seed(1);
    let (news, olds) = (Traffic::default(), Traffic::default());
    let look = |judge: &mut Judge, seconds, news: &Traffic, olds: &Traffic| {
        judge.look(later(start(), seconds), &news.figures.counted(), &olds.figures.counted())
    };
    assert_eq!(look(&mut judge, 0, &news, &olds), Decision::Stay);
    news.take(99, WELL, &mut random);
    olds.take(1000, WELL, &mut random);
    for seconds in [600, 6_000, 60_000] {
        assert_eq!(look(&mut judge, seconds, &news, &olds), Decision::Stay);
    }
    assert!(
        judge
            .told(later(start(), 60_000))
            .contains("waits: 99 requests to `app` and 1000 to `old`, of 100 each")
    );
    news.take(1, WELL, &mut random);
    assert_eq!(look(&mut judge, 60_060, &news, &olds), Decision::Shift(100));
}

#[test]
fn where_both_fail_a_person_decides() {
    let broken = Behaviour { errors: 0.9, ..WELL };
    let (state, _) = run(plan(&[10, 100]), 5_000, broken, broken, 1);
    assert!(
        matches!(&state, State::Stopped { why, .. } if why.contains("half of the requests")),
        "{state:?}"
    );
}

#[test]
fn a_restart_begins_the_step_anew_and_keeps_what_was_before() {
    let mut judge = Judge::new(plan(&[50, 100]), start());
    let mut random = fastrand::Rng::with_seed(1);
    let (news, olds) = (Traffic::default(), Traffic::default());
    judge.look(start(), &news.figures.counted(), &olds.figures.counted());
    news.take(500, WELL, &mut random);
    olds.take(500, WELL, &mut random);
    let decision = judge.look(later(start(), 600), &news.figures.counted(), &olds.figures.counted());
    assert_eq!(decision, Decision::Shift(100));

    let kept = serde_json::to_string(&judge).unwrap();
    let mut judge: Judge = serde_json::from_str(&kept).unwrap();
    let (news, olds) = (Traffic::default(), Traffic::default());
    let now = later(start(), 10_000);
    judge.resume(now);
    assert_eq!(
        (judge.share(), judge.look(now, &news.figures.counted(), &olds.figures.counted())),
        (100, Decision::Stay)
    );
    // Nothing goes to the old one any more: it is known from before the restart.
    news.take(500, WELL, &mut random);
    let decision = judge.look(later(now, 600), &news.figures.counted(), &olds.figures.counted());
    assert_eq!(decision, Decision::Finish);
}

#[test]
fn a_clock_that_is_set_back_lengthens_a_step_and_no_more() {
    let mut judge = Judge::new(plan(&[50, 100]), start());
    let none = Counted::default();
    assert_eq!(judge.look(start() - Duration::from_secs(86_400), &none, &none), Decision::Stay);
    assert!(judge.next_look(start() - Duration::from_secs(86_400)) <= Duration::from_secs(60));
}
