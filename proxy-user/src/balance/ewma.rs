//! How long a server takes to answer, as one number that forgets: Finagle's peak EWMA, which Linkerd took over
//! (`twitter/finagle`, `PeakEwma.scala`; `linkerd/linkerd2-proxy`, `peak_ewma.rs`).
//!
//! What is slower than the number replaces it at once; what is quicker lowers it with a weight of 1 − e^(−t/τ), where t is
//! the time since the last one. Read, it has decayed towards zero by e^(−t/τ): a server that nobody asks because it was
//! slow once is asked again. Its load is the number times the requests under way there, with the one that is to be placed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// τ in milliseconds: after so long, a third of an old observation is left.
pub const DECAY: f32 = 10_000.0;

/// The load of a server that has never answered and has something under way already: it isn't asked for more until it has.
const UNPROVEN: f64 = 1e12;

/// Moment (32 bits of milliseconds, which may wrap) and microseconds (an `f32`), in one word that needs no lock.
#[derive(Debug, Default)]
pub struct Ewma(AtomicU64);

/// What a server's latency (in microseconds) and requests under way make of it.
pub fn load(latency: f32, active: f64) -> f64 {
    if latency == 0.0 && active > 0.0 {
        return UNPROVEN + active;
    }
    f64::from(latency) * (active + 1.0)
}

impl Ewma {
    /// An answer took so many microseconds.
    pub fn observe(&self, micros: f32, now: Moment) {
        // A clash with another worker is tried again; that ends, since one of the two always gets through.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (at, known) = unpacked(word);
            let kept = decay(at, now);
            let next = if micros > known * kept { micros } else { known * kept + micros * (1.0 - kept) };
            Some(packed(now, next))
        });
    }

    /// In microseconds; 0 when there is nothing known, or not any more.
    pub fn at(&self, now: Moment) -> f32 {
        let (at, known) = unpacked(self.0.load(Ordering::Relaxed));
        let now_is = known * decay(at, now);
        // Below a microsecond it is forgotten.
        if now_is < 1.0 { 0.0 } else { now_is }
    }
}

fn packed(now: Moment, micros: f32) -> u64 {
    (now.0 & u64::from(u32::MAX)) << 32 | u64::from(micros.to_bits())
}

fn unpacked(word: u64) -> (u32, f32) {
    ((word >> 32) as u32, f32::from_bits(word as u32))
}

fn decay(at: u32, now: Moment) -> f32 {
    let passed = (now.0 as u32).wrapping_sub(at);
    // The clocks of two workers may be a tick apart.
    let passed = if passed > u32::MAX / 2 { 0 } else { passed };
    (-(passed as f32) / DECAY).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_quick_answers_only_slowly() {
        let ewma = Ewma::default();
        ewma.observe(1_000.0, Moment(0));
        ewma.observe(50_000.0, Moment(100));
        assert_eq!(ewma.at(Moment(100)), 50_000.0);
        ewma.observe(1_000.0, Moment(200));
        assert!(ewma.at(Moment(200)) > 49_000.0);
        for second in 1..60u64 {
            ewma.observe(1_000.0, Moment(second * 1000));
        }
        assert!((900.0..1_300.0).contains(&ewma.at(Moment(59_000))), "{}", ewma.at(Moment(59_000)));
    }

    #[test]
    fn what_nobody_asks_is_forgiven() {
        let ewma = Ewma::default();
        ewma.observe(1_000_000.0, Moment(0));
        let third = ewma.at(Moment(10_000));
        assert!((360_000.0..375_000.0).contains(&third), "{third}");
        assert_eq!(ewma.at(Moment(200_000)), 0.0);
    }

    #[test]
    fn moments_that_wrap_or_come_out_of_order_do_no_harm() {
        let ewma = Ewma::default();
        let late = u64::from(u32::MAX) - 10;
        ewma.observe(1_000.0, Moment(late));
        ewma.observe(1_000.0, Moment(late - 50));
        assert!((900.0..=1_000.0).contains(&ewma.at(Moment(late + 20))), "{}", ewma.at(Moment(late + 20)));
    }

    #[test]
    fn an_unproven_server_gets_one_request_and_no_second_one() {
        assert_eq!(load(0.0, 0.0), 0.0);
        assert!(load(0.0, 1.0) > load(60_000_000.0, 1000.0));
    }
}
