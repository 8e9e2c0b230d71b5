//! What the gate's programs that log (`log.kernel`) share with the daemon that reads their lines.
//!
//! A line is a row of numbers and addresses: the kernel knows no names.

/// How many lines each CPU writes in a window of so many nanoseconds.
pub const LINES_PER_WINDOW: u64 = 100;
pub const WINDOW: u64 = 1_000_000_000;

/// What one CPU has had to say.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// When the window began.
    pub since: u64,
    /// Lines in it.
    pub in_window: u64,
    /// Ever, written or left out.
    pub all: u64,
}

const _: () = assert!(size_of::<Spoken>() == 24);

/// What became of the packet. In the line as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Dropped = 1,
    /// It passed, because its entrypoint is shadowed.
    WouldDrop = 2,
    /// A connection was asked for, and may be.
    LetIn = 3,
}

// === impl Spoken ===

impl Spoken {
    /// Whether one more line may be written at `now`. It counts either way.
    #[inline(always)]
    #[must_use]
    pub const fn may_tell(&mut self, now: u64) -> bool {
        self.all += 1;
        if now.wrapping_sub(self.since) >= WINDOW {
            self.since = now;
            self.in_window = 0;
        }
        let may = self.in_window < LINES_PER_WINDOW;
        if may {
            self.in_window += 1;
        }
        may
    }
}

// === impl Outcome ===

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Dropped, Self::WouldDrop, Self::LetIn];

    /// `None`: of another version's.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u32 == number)
    }
}

// SAFETY: `repr(C)`, integers only, the size asserted above shows that nothing is padding, and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Spoken {}

#[cfg(test)]
mod tests {
    use super::{LINES_PER_WINDOW, Spoken, WINDOW};

    #[test]
    fn a_flood_is_told_by_a_few_lines_and_counted_whole() {
        let mut spoken = Spoken::default();
        // Three seconds of a packet every microsecond.
        let lines = (0..3_000_000_u64).filter(|packet| spoken.may_tell(WINDOW + packet * 1_000)).count();
        assert_eq!((lines as u64, spoken.all), (3 * LINES_PER_WINDOW, 3_000_000));
    }
}
