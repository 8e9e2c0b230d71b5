//! Requests that a client gives up before it has their answer: each costs it a few bytes, and a server a request. A browser that
//! leaves a page gives up all of the page's at once; who goes on at the pace of a machine is hostile (CVE-2023-44487).

use std::{cell::Cell, time::Duration};

use crate::clock::Moment;

/// So many may be given up at once, or as many as a client may ask at a time.
const AT_ONCE: u32 = 256;

/// Then one for each of these.
const EACH: Duration = Duration::from_millis(30);

/// What is left of a connection's budget.
#[derive(Debug)]
pub struct Budget {
    at_once: u32,
    /// The moment at which all would be forgiven (GCRA).
    forgiven: Cell<Moment>,
}

impl Budget {
    /// For a client that may ask so much at a time.
    pub fn of_streams(streams: u32) -> Self {
        Self { at_once: streams.max(AT_ONCE), forgiven: Cell::default() }
    }

    /// Whether one more is too many.
    pub fn is_spent_by_one_more(&self, now: Moment) -> bool {
        let forgiven = self.forgiven.get().max(now);
        if forgiven > now.after(EACH * (self.at_once - 1)) {
            return true;
        }
        self.forgiven.set(forgiven.after(EACH));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_full_may_be_given_up_and_a_stream_of_them_may_not() {
        for (streams, at_once) in [(128, 256), (1000, 1000)] {
            let (budget, mut now) = (Budget::of_streams(streams), Moment(1_000_000));
            let spent = |now, times| (0..times).filter(|_| budget.is_spent_by_one_more(now)).count();
            assert_eq!(spent(now, at_once), 0);
            assert_eq!(spent(now, 10), 10);
            now = now.after(EACH * 5);
            assert_eq!(spent(now, 10), 5);
            now = now.after(EACH * at_once);
            assert_eq!(spent(now, at_once), 0);
        }
    }
}
