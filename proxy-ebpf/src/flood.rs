//! Whether an entrypoint is flooded: SYNs are counted by the second, over all CPUs.
//!
//! Counting is loose where it costs nothing: CPUs that begin a second at once may lose each other's first SYNs, and a
//! flood that straddles two seconds is noticed in the next. What is exact is the end: handshakes have to be proved
//! until [`HOLD`] after the last second that had too many.

use proxy_common::syn_flood::{Flood, HOLD, WINDOW};

use crate::word::Word;

/// An entrypoint's [`Flood`], as all CPUs have it before them.
pub struct Gauge<'a> {
    from: Word<'a>,
    window_began: Word<'a>,
    openings: Word<'a>,
    active_since: Word<'a>,
    active_until: Word<'a>,
}

/// The end of a flood is moved in steps of this many nanoseconds: whoever writes takes the word from all CPUs.
const STEP: u64 = HOLD / 100;

impl<'a> Gauge<'a> {
    /// # Safety
    /// `flood` must be aligned, must stay, and nobody may access it otherwise than as single words.
    #[inline(always)]
    pub unsafe fn of(flood: *mut Flood) -> Self {
        // SAFETY: by the caller's word, for each of the words.
        unsafe {
            Self {
                from: Word::of(&raw mut (*flood).from),
                window_began: Word::of(&raw mut (*flood).window_began),
                openings: Word::of(&raw mut (*flood).openings),
                active_since: Word::of(&raw mut (*flood).active_since),
                active_until: Word::of(&raw mut (*flood).active_until),
            }
        }
    }

    /// One more SYN. Says whether it has to be proved.
    #[inline(always)]
    pub fn opening(&self, now: u64) -> bool {
        // 1. It counts.
        if now.saturating_sub(self.window_began.load()) >= WINDOW {
            self.window_began.store(now);
            self.openings.store(1);
        } else {
            self.openings.increment();
        }

        // 2. Too many: from now on, or for longer.
        let from = self.from.load();
        let until = self.active_until.load();
        if from != 0 && self.openings.load() >= from {
            if until < now {
                self.active_since.store(now);
            }
            if until < now + HOLD - STEP {
                self.active_until.store(now + HOLD);
            }
            return true;
        }
        until >= now
    }

    /// Whether handshakes have to be proved. `now` is asked for only where the answer depends on it.
    #[inline(always)]
    pub fn is_active(&self, now: impl FnOnce() -> u64) -> bool {
        match self.active_until.load() {
            0 => false,
            until if until >= now() => true,
            _ => {
                // The first after the end says so to all others. A flood that begins in this moment is noticed again
                // with its next SYN.
                self.active_until.store(0);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn from(from: u64) -> Flood {
        Flood { from, ..Flood::default() }
    }

    fn openings(flood: &mut Flood, count: u64, at: u64) -> u64 {
        // SAFETY: a local variable that nobody else has.
        let gauge = unsafe { Gauge::of(flood) };
        (0..count).filter(|_| gauge.opening(at)).count() as u64
    }

    fn is_active(flood: &mut Flood, at: u64) -> bool {
        // SAFETY: as above.
        unsafe { Gauge::of(flood) }.is_active(|| at)
    }

    #[test]
    fn the_syn_that_reaches_the_threshold_is_the_first_to_be_proved() {
        let mut flood = from(100);
        assert_eq!(openings(&mut flood, 99, 5 * SECOND), 0);
        assert!(!is_active(&mut flood, 5 * SECOND));
        assert_eq!(openings(&mut flood, 3, 6 * SECOND - 1), 3);
        assert!(is_active(&mut flood, 6 * SECOND));
        assert_eq!(flood.active_since, 6 * SECOND - 1);
    }

    #[test]
    fn what_comes_slower_than_the_threshold_is_never_proved() {
        let mut flood = from(100);
        for second in 1..1000 {
            assert_eq!(openings(&mut flood, 99, second * SECOND), 0, "in second {second}");
        }
        assert_eq!(flood.active_since, 0);
    }

    #[test]
    fn it_stays_on_for_ten_seconds_after_the_last_second_with_too_many() {
        let mut flood = from(100);
        openings(&mut flood, 500, 5 * SECOND);
        openings(&mut flood, 500, 9 * SECOND);
        // From here on a trickle.
        for second in 10..=19 {
            assert_eq!(openings(&mut flood, 1, second * SECOND), 1, "in second {second}");
            assert!(is_active(&mut flood, second * SECOND));
        }
        assert_eq!(openings(&mut flood, 1, 19 * SECOND + 1), 0);
        assert!(!is_active(&mut flood, 19 * SECOND + 2));
        assert_eq!((flood.active_since, flood.active_until), (5 * SECOND, 0));
        openings(&mut flood, 100, 30 * SECOND);
        assert_eq!(flood.active_since, 30 * SECOND);
    }

    #[test]
    fn without_a_threshold_nothing_is_a_flood() {
        let mut flood = from(0);
        assert_eq!(openings(&mut flood, 10_000, 5 * SECOND), 0);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_on_another_cpu_does_not_begin_a_second() {
        let mut flood = from(100);
        openings(&mut flood, 99, 5 * SECOND);
        assert_eq!(openings(&mut flood, 1, 5 * SECOND - 300), 1);
    }

    #[test]
    fn an_inactive_entrypoint_does_not_ask_the_clock() {
        let mut flood = from(100);
        // SAFETY: as above.
        assert!(!unsafe { Gauge::of(&raw mut flood) }.is_active(|| panic!("it asked")));
    }
}
