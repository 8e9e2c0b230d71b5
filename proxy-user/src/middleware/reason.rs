//! Why a request got an answer of Weir's own instead of a server's: one name for it in the access log, in `weir status` and in
//! the documentation.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::Halt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Redirected,
    ClientDenied,
    Unauthorized,
    AuthDenied,
    AuthUnavailable,
    RateLimited,
    Busy,
    TooLarge,
    TimedOut,
}

/// How often each was the reason.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; Reason::ALL.len()]);

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Redirected,
        Self::ClientDenied,
        Self::Unauthorized,
        Self::AuthDenied,
        Self::AuthUnavailable,
        Self::RateLimited,
        Self::Busy,
        Self::TooLarge,
        Self::TimedOut,
    ];

    /// Of a request that a chain halted. A client that left, or sent nonsense, is counted elsewhere.
    pub fn of(halt: &Halt) -> Option<Self> {
        Some(match halt {
            Halt::Redirect { .. } => Self::Redirected,
            Halt::ClientDenied => Self::ClientDenied,
            Halt::Unauthorized { .. } => Self::Unauthorized,
            Halt::AuthDenied(_) => Self::AuthDenied,
            Halt::AuthUnavailable => Self::AuthUnavailable,
            Halt::RateLimited { .. } => Self::RateLimited,
            Halt::Busy => Self::Busy,
            Halt::TooLarge => Self::TooLarge,
            Halt::ClientLeft | Halt::Unfit => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::ClientDenied => "client_denied",
            Self::Unauthorized => "unauthorized",
            Self::AuthDenied => "auth_denied",
            Self::AuthUnavailable => "auth_unavailable",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
        }
    }
}

impl Tally {
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, by name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        Reason::ALL.into_iter().map(Reason::name).zip(&self.0)
    }

    /// Those that occurred.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        let each = Reason::ALL.map(|reason| (reason, self.0[reason as usize].load(Ordering::Relaxed)));
        each.into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        let tally = Tally::default();
        for (nth, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, nth);
            tally.count(reason);
        }
        assert_eq!(tally.counted().len(), Reason::ALL.len());
    }
}
