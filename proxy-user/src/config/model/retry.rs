//! When a request goes to another server.

use std::{ops::RangeInclusive, time::Duration};

use http::{Method, StatusCode};

/// `retry = { attempts = 3, within = "30s", buffer = "64KiB", … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Servers that a request is sent to, at most. Default 3; 1 to 10.
    pub attempts: u32,
    /// From the first attempt's begin to the last one's. Default 30 s.
    pub within: Duration,
    /// Bytes of a request's body that are kept. Default 64 KiB; up to 16 MiB.
    pub buffer: usize,
    /// That may be sent again beside the idempotent ones. Default: none.
    pub methods: Vec<Method>,
    /// Answers that another server may better. Default 502 to 504.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Repetitions among the requests under way, in percent; 0: none, else at least three. Default 20.
    pub budget: u32,
    /// The longest wait before the second repetition. Default 25 ms; up to 10 s.
    pub backoff: Duration,
}

/// `hedge = { after = "p95", most = "5%" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// Hedged requests among all, in percent. Default 5; 1 to 100.
    pub most: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    Delay(Duration),
    /// The time within which so many percent of the answers come; 50 to 99.
    Quantile(u32),
}

impl Retry {
    /// Whether sending a request of this method twice does no harm (RFC 9110 §9.2.2), or is wanted all the same.
    #[must_use]
    pub fn may_repeat(&self, method: &Method) -> bool {
        matches!(
            *method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        ) || self.methods.contains(method)
    }

    /// Whether another server may have a better answer.
    #[must_use]
    pub fn is_bettered(&self, status: StatusCode) -> bool {
        !status.is_success() && self.statuses.iter().any(|range| range.contains(&status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(methods: &[Method]) -> Retry {
        Retry {
            attempts: 3,
            within: Duration::from_secs(30),
            buffer: 0,
            methods: methods.to_vec(),
            statuses: vec![429..=429, 502..=504],
            budget: 20,
            backoff: Duration::ZERO,
        }
    }

    #[test]
    fn only_idempotent_requests_are_repeated() {
        let retry = retry(&[]);
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(retry.may_repeat(&method), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"LOCK").unwrap()] {
            assert!(!retry.may_repeat(&method), "{method}");
        }
    }

    #[test]
    fn a_method_may_be_declared_repeatable() {
        let retry = retry(&[Method::POST]);
        assert!(retry.may_repeat(&Method::POST) && !retry.may_repeat(&Method::PATCH));
    }

    #[test]
    fn only_the_listed_statuses_are_bettered() {
        let retry = retry(&[]);
        for (status, bettered) in [(200, false), (404, false), (429, true), (500, false), (503, true)] {
            assert_eq!(retry.is_bettered(StatusCode::from_u16(status).unwrap()), bettered, "{status}");
        }
    }
}
