//! Asks a second server when the first takes long, and takes whichever answers first.
//!
//! Only what may be repeated, only when its body is whole, and only a small share of all requests: against a single slow
//! server it helps, and when all are slow it must not double their work.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::request;
use tokio::time::sleep;

use crate::{
    access_log::attempts::Outcome,
    body::RequestBody,
    config::model::{Hedge, HedgeAfter},
    service::Picked,
    upstream::{
        attempt::{Answer, Failed, attempt},
        deliver::{Delivery, set_aside},
    },
};

/// So many answers must have been seen before their quantile says something.
const ENOUGH: u32 = 100;

/// What one hedged request costs of what requests earn, a hundredth of it for each percent.
const PRICE: u32 = 100;

/// So many hedged requests can be saved up.
const SAVED_UP: u32 = 10;

/// How a service hedges. What it has learnt survives a reload.
#[derive(Debug)]
pub struct Hedging {
    settings: Hedge,
    learnt: Arc<Learnt>,
}

#[derive(Debug, Default)]
struct Learnt {
    /// The estimated quantile of the time to an answer, in microseconds.
    usual: AtomicU64,
    seen: AtomicU32,
    purse: AtomicU32,
    hedged: AtomicU64,
    won: AtomicU64,
}

impl Hedging {
    pub fn new(settings: Hedge, known: Option<&Self>) -> Self {
        let same = known.filter(|known| known.settings.after == settings.after);
        Self { settings, learnt: same.map(|known| known.learnt.clone()).unwrap_or_default() }
    }

    /// How many requests were asked twice, and how many of them the second server answered first.
    pub fn counts(&self) -> (u64, u64) {
        (self.learnt.hedged.load(Ordering::Relaxed), self.learnt.won.load(Ordering::Relaxed))
    }

    /// What [`Self::counts`] reads.
    pub fn counters(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.learnt.hedged, &self.learnt.won)
    }

    /// After which time another server is asked. `None`: that isn't known yet.
    fn delay(&self) -> Option<Duration> {
        match self.settings.after {
            HedgeAfter::Delay(delay) => Some(delay),
            HedgeAfter::Quantile(_) => {
                let known = self.learnt.seen.load(Ordering::Relaxed) >= ENOUGH;
                known.then(|| Duration::from_micros(self.learnt.usual.load(Ordering::Relaxed)))
            }
        }
    }

    /// An answer took so long, or longer.
    fn observe(&self, took: Duration) {
        let HedgeAfter::Quantile(percent) = self.settings.after else { return };
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let usual = self.learnt.usual.load(Ordering::Relaxed);
        // Two workers at a time may overwrite each other's step: that only makes it one step.
        self.learnt.usual.store(stepped(usual, took, percent), Ordering::Relaxed);
        if self.learnt.seen.load(Ordering::Relaxed) < ENOUGH {
            self.learnt.seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every request earns its share.
    fn earn(&self) {
        let earn = |purse: u32| Some((purse + self.settings.most).min(SAVED_UP * PRICE));
        let _ = self.learnt.purse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    fn spend(&self) -> bool {
        let spend = |purse: u32| purse.checked_sub(PRICE);
        self.learnt.purse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// One step of a stochastic approximation (Robbins and Monro 1951): up by the quantile's part when the value is above,
/// down by the rest when it is not, so that it rests where so many percent are not above. In proportion to what it is, since
/// answers take microseconds or seconds.
fn stepped(usual: u64, took: u64, percent: u32) -> u64 {
    const STEP: u64 = 1600;
    let percent = u64::from(percent);
    match usual {
        0 => took.max(1),
        _ if took > usual => usual.saturating_add((usual.saturating_mul(percent) / STEP).max(1)),
        _ => usual.saturating_sub(usual.saturating_mul(100 - percent) / STEP).max(1),
    }
}

impl<'a> Delivery<'a> {
    /// An attempt at `first`, and one at another server beside it if that takes long. Tells who had the last word.
    pub(super) async fn race(
        &mut self,
        hedging: &Hedging,
        first: Picked<'a>,
        head: &request::Parts,
        body: RequestBody,
    ) -> (Picked<'a>, Result<Answer, Failed>) {
        let (means, service, terms) = (self.means, self.service, self.terms());
        let begun = Instant::now();
        hedging.earn();
        let mut asked = pin!(attempt(means, service, first, terms, head, body));
        let Some(delay) = hedging.delay() else {
            let answered = asked.await;
            hedging.observe(begun.elapsed());
            return (first, answered);
        };
        tokio::select! {
            biased;
            answered = &mut asked => {
                hedging.observe(begun.elapsed());
                return (first, answered);
            }
            () = sleep(delay) => {}
        }
        hedging.observe(begun.elapsed());
        let other = Some(()).filter(|()| self.parcel.is_whole() && service.has_other(self.tried));
        let other = other.filter(|()| hedging.spend()).and_then(|()| service.pick(self.tried, self.wanted));
        let Some((second, body)) = other.and_then(|other| Some((other, self.parcel.body()?))) else {
            return (first, asked.await);
        };
        self.tried.insert(second.index);
        self.sent += 1;
        second.server.counters.requests.fetch_add(1, Ordering::Relaxed);
        hedging.learnt.hedged.fetch_add(1, Ordering::Relaxed);
        let begun_too = Instant::now();
        let again = self.begin_span(second);
        let head_too = again.as_deref().unwrap_or(head);
        let mut asked_too = pin!(attempt(means, service, second, self.terms(), head_too, body));
        let (first_spoke, answered) = tokio::select! {
            biased;
            answered = &mut asked => (true, answered),
            answered = &mut asked_too => (false, answered),
        };
        let (winner, loser) = if first_spoke { (first, second) } else { (second, first) };
        let (since, loser_since) = if first_spoke { (begun, begun_too) } else { (begun_too, begun) };
        match answered {
            Ok(answer) if !service.retry.is_bettered(answer.head.status) => {
                if !first_spoke {
                    hedging.learnt.won.fetch_add(1, Ordering::Relaxed);
                }
                self.note(loser, loser_since, Outcome::Failed("outrun"));
                (winner, Ok(answer))
            }
            // The other one may do better.
            answered => {
                let outcome = match &answered {
                    Ok(answer) => Outcome::Answered(answer.head.status),
                    Err(failed) => Outcome::Failed(failed.fault.name()),
                };
                self.note(winner, since, outcome);
                let other = if first_spoke { asked_too.await } else { asked.await };
                match (answered, other) {
                    (Ok(answer), Err(failed)) => {
                        self.note(loser, loser_since, Outcome::Failed(failed.fault.name()));
                        (winner, Ok(answer))
                    }
                    (Ok(answer), other) => {
                        set_aside(answer);
                        (loser, other)
                    }
                    (Err(_), other) => (loser, other),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hedging(after: HedgeAfter, most: u32) -> Hedging {
        Hedging::new(Hedge { after, most }, None)
    }

    #[test]
    fn the_quantile_settles_where_as_many_as_it_says_are_quicker() {
        let mut random = fastrand::Rng::with_seed(7);
        for percent in [50, 90, 95, 99] {
            let hedging = hedging(HedgeAfter::Quantile(percent), 5);
            // Long-tailed, as answers are: most at some ms, few at some hundred.
            let mut draw = || Duration::from_micros((2_000.0 / (1.0 - random.f64()).max(1e-6)) as u64);
            for _ in 0..20_000 {
                hedging.observe(draw());
            }
            let (mut above, rounds) = (0, 20_000);
            for _ in 0..rounds {
                let took = draw();
                above += u32::from(took > hedging.delay().unwrap());
                hedging.observe(took);
            }
            let share = f64::from(above) / f64::from(rounds) * 100.0;
            let wanted = f64::from(100 - percent);
            assert!((share - wanted).abs() < wanted * 0.2, "p{percent}: {share}% were slower");
        }
    }

    #[test]
    fn a_quantile_is_not_believed_before_enough_was_seen() {
        let hedging = hedging(HedgeAfter::Quantile(95), 5);
        for _ in 1..ENOUGH {
            hedging.observe(Duration::from_millis(10));
        }
        assert_eq!(hedging.delay(), None);
        hedging.observe(Duration::from_millis(10));
        assert!(hedging.delay().is_some());
    }

    #[test]
    fn no_more_than_the_share_is_asked_twice_however_slow_everything_is() {
        let hedging = hedging(HedgeAfter::Delay(Duration::from_millis(1)), 5);
        let hedged = (0..10_000).filter(|_| {
            hedging.earn();
            hedging.spend()
        });
        assert_eq!(hedged.count(), 500);
        // A quiet hour doesn't pay for a storm.
        (0..100_000).for_each(|_| hedging.earn());
        assert_eq!((0..1_000).filter(|_| hedging.spend()).count(), SAVED_UP as usize);
    }

    #[test]
    fn what_was_learnt_is_forgotten_only_with_what_it_was_about() {
        let first = hedging(HedgeAfter::Quantile(95), 5);
        (0..ENOUGH).for_each(|_| first.observe(Duration::from_millis(10)));
        let same = Hedging::new(Hedge { after: HedgeAfter::Quantile(95), most: 10 }, Some(&first));
        assert_eq!(same.delay(), first.delay());
        let other = Hedging::new(Hedge { after: HedgeAfter::Quantile(90), most: 5 }, Some(&first));
        assert_eq!(other.delay(), None);
    }
}
