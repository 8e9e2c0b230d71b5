//! Requests that a client gives up: each costs it two datagrams, and a server a request. A browser that leaves a page gives up
//! all of the page's at once; who goes on at the pace of a machine is hostile (CVE-2023-44487, in HTTP/2's words).

use std::{cell::Cell, time::Duration};

use h3::error::Code;
use quinn::VarInt;

use super::count;
use crate::{clock::Moment, hygiene::Fault, request::Caller};

/// So many may be given up at once.
const AT_ONCE: u32 = 256;

/// Then one for each of these.
const EACH: Duration = Duration::from_millis(30);

/// What is left of a connection's patience.
#[derive(Debug, Default)]
struct Budget(Cell<Moment>);

/// Ends a connection whose client gives up too many requests.
pub struct Resets {
    connection: quinn::Connection,
    budget: Budget,
}

// === impl Budget ===

impl Budget {
    /// Whether one more is too many. (The moment is the one at which all would be forgiven: GCRA.)
    fn is_spent_by_one_more(&self, now: Moment) -> bool {
        let forgiven = self.0.get().max(now);
        if forgiven > now.after(EACH * (AT_ONCE - 1)) {
            return true;
        }
        self.0.set(forgiven.after(EACH));
        false
    }
}

// === impl Resets ===

impl Resets {
    pub fn of(connection: &quinn::Connection) -> Self {
        Self { connection: connection.clone(), budget: Budget::default() }
    }

    /// The client gave a request up. Those that end with their connection don't count.
    pub fn one_more(&self, caller: &Caller) {
        if self.connection.close_reason().is_none() && self.budget.is_spent_by_one_more(Moment::recent()) {
            count(caller, Fault::Http3Flood);
            let why = VarInt::from_u64(Code::H3_EXCESSIVE_LOAD.value()).unwrap_or(VarInt::MAX);
            self.connection.close(why, b"too many requests were given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_full_may_be_given_up_and_a_stream_of_them_may_not() {
        let (budget, mut now) = (Budget::default(), Moment(1_000_000));
        let spent = |now, times| (0..times).filter(|_| budget.is_spent_by_one_more(now)).count();
        assert_eq!(spent(now, AT_ONCE), 0);
        assert_eq!(spent(now, 10), 10);
        now = now.after(EACH * 5);
        assert_eq!(spent(now, 10), 5);
        now = now.after(EACH * AT_ONCE);
        assert_eq!(spent(now, AT_ONCE), 0);
    }
}
