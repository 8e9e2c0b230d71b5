//! How a request ended, whose fault it was, and where its time went.

use std::time::{Duration, Instant};

use crate::{access_log::Exchange, hygiene::Fault, middleware::reason::Reason, page::why::Why};

/// How a request ended, where that is not plain from its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// More servers than one were asked: so many attempts beyond the first.
    pub retries: u8,
    /// Weir answered with a page in a server's place.
    pub page: Option<Why>,
    /// The server broke off in the middle of its answer.
    pub server_broke_off: bool,
    /// The client left before it had the whole answer.
    pub client_left: bool,
    /// The client broke a rule or a limit, and was told so.
    pub refused: Option<Fault>,
    /// The route's middleware answered in the server's place.
    pub halted: Option<Reason>,
    /// No server answered: why, in a word.
    pub undelivered: Option<&'static str>,
    /// A service's breaker kept it away from its servers.
    pub breaker: bool,
    /// It was under way still when this host's time to end was over.
    pub cut: bool,
}

/// Whose fault it is that a request didn't end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Client,
    Server,
    /// This host, or what its operator ordered.
    Weir,
}

/// When a request passed what. Everything here is known anyhow: telling the time costs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// The attempt that was answered, or the last one, began.
    pub asked: Option<Instant>,
    /// Its connection was opened for it, in that time.
    pub connect: Option<Duration>,
    /// Its answer's head was there.
    pub answered: Option<Instant>,
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub at: Instant,
    pub took: Duration,
    pub blame: Option<Blame>,
    pub split: Split,
}

/// Where its time went, as far as it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Split {
    /// Until the client's body was there to its end.
    pub body: Option<Duration>,
    /// Until the attempt began that was answered: middleware, other attempts, waits between them.
    pub wait: Option<Duration>,
    /// To open a connection, if there was none.
    pub connect: Option<Duration>,
    /// From then until the answer's head was there.
    pub first_byte: Option<Duration>,
    /// From then until the answer's end was on its way.
    pub answer: Option<Duration>,
}

// === impl Ended ===

impl Ended {
    /// The end is now.
    pub fn of(exchange: &Exchange) -> Self {
        let at = Instant::now();
        let Timings { asked, connect, answered } = exchange.timings;
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let split = Split {
            body: exchange.received.ended.get().map(|ended| since(exchange.began, ended)),
            wait: asked.map(|asked| since(exchange.began, asked)),
            connect,
            first_byte: asked
                .zip(answered)
                .map(|(asked, answered)| since(asked, answered).saturating_sub(connect.unwrap_or_default())),
            answer: answered.map(|answered| since(answered, at)),
        };
        let blame = exchange.flags.blame(exchange.status.as_u16());
        Self { at, took: since(exchange.began, at), blame, split }
    }

    /// Whether a log that samples what ended well may leave it out.
    pub fn well(&self, exchange: &Exchange) -> bool {
        let by_others = matches!(self.blame, Some(Blame::Server | Blame::Weir));
        exchange.status.as_u16() < 500 && exchange.flags.page.is_none() && !by_others
    }
}

// === impl Flags ===

impl Flags {
    /// The names of those that are set.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.retries > 0, "retried"),
            (self.page.is_some(), "page"),
            (self.server_broke_off, "server_broke_off"),
            (self.client_left, "client_left"),
            (self.refused.is_some() || self.halted.is_some(), "refused"),
            (self.undelivered.is_some(), "undelivered"),
            (self.breaker, "breaker"),
            (self.is_timeout(), "timeout"),
            (self.cut, "cut"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
    }

    /// Whether there is nothing to tell: mostly.
    pub fn none(&self) -> bool {
        *self == Self::default()
    }

    /// Whoever had to say or do something took too long.
    fn is_timeout(&self) -> bool {
        matches!(self.undelivered, Some("connect_timeout" | "first_byte_timeout" | "silent" | "too_late"))
            || self.halted == Some(Reason::TimedOut)
            || self.refused.is_some_and(Fault::is_timeout)
    }

    /// In a word; the cause rather than what came of it.
    pub fn why(&self) -> Option<&'static str> {
        let cut = self.cut.then_some("cut");
        let broke = self.server_broke_off.then_some("server_broke_off");
        let left = self.client_left.then_some("client_left");
        cut.or(self.refused.map(Fault::name))
            .or(self.undelivered)
            .or(self.halted.map(Reason::name))
            .or(broke)
            .or(left)
            .or(self.page.map(Why::name))
    }

    fn blame(&self, status: u16) -> Option<Blame> {
        if self.none() {
            return (status >= 500).then_some(Blame::Server);
        }
        if self.cut {
            return Some(Blame::Weir);
        }
        if self.refused.is_some() || self.client_left {
            return Some(Blame::Client);
        }
        if self.server_broke_off || self.undelivered.is_some() {
            return Some(Blame::Server);
        }
        match (self.halted, self.page) {
            (Some(Reason::TimedOut | Reason::AuthUnavailable), _) | (_, Some(Why::AllDown | Why::Status)) => {
                Some(Blame::Server)
            }
            (Some(Reason::Busy), _) | (_, Some(Why::Maintenance)) => Some(Blame::Weir),
            (Some(Reason::Redirected), _) => None,
            (
                Some(
                    Reason::ClientDenied
                    | Reason::Unauthorized
                    | Reason::AuthDenied
                    | Reason::RateLimited
                    | Reason::TooLarge,
                ),
                _,
            ) => Some(Blame::Client),
            (None, None) => (status >= 500).then_some(Blame::Server),
        }
    }
}

// === impl Blame ===

impl Blame {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Weir => "weir",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_somebody_to_blame_or_nobody() {
        let none = Flags::default();
        let table = [
            ("an answer", none, 200, None, None),
            ("an answer that was not found", none, 404, None, None),
            ("an error of the server's own", none, 500, Some(Blame::Server), None),
            ("retried and answered", Flags { retries: 1, ..none }, 200, None, None),
            ("left", Flags { client_left: true, ..none }, 499, Some(Blame::Client), Some("client_left")),
            (
                "let go",
                Flags { refused: Some(Fault::BodyTimeout), ..none },
                408,
                Some(Blame::Client),
                Some(Fault::BodyTimeout.name()),
            ),
            (
                "broke off",
                Flags { server_broke_off: true, ..none },
                200,
                Some(Blame::Server),
                Some("server_broke_off"),
            ),
            (
                "no server",
                Flags { undelivered: Some("refused"), page: Some(Why::AllDown), ..none },
                503,
                Some(Blame::Server),
                Some("refused"),
            ),
            (
                "breaker",
                Flags { undelivered: Some("breaker_open"), breaker: true, page: Some(Why::AllDown), ..none },
                503,
                Some(Blame::Server),
                Some("breaker_open"),
            ),
            (
                "maintenance",
                Flags { page: Some(Why::Maintenance), ..none },
                503,
                Some(Blame::Weir),
                Some("maintenance"),
            ),
            ("redirected", Flags { halted: Some(Reason::Redirected), ..none }, 308, None, Some("redirected")),
            (
                "too many",
                Flags { halted: Some(Reason::RateLimited), ..none },
                429,
                Some(Blame::Client),
                Some("rate_limited"),
            ),
            ("cut", Flags { cut: true, client_left: true, ..none }, 200, Some(Blame::Weir), Some("cut")),
        ];
        for (what, flags, status, blame, why) in table {
            assert_eq!((flags.blame(status), flags.why()), (blame, why), "{what}");
        }
    }

    #[test]
    fn what_took_too_long_is_a_timeout_whoever_it_was() {
        let named = |flags: Flags| flags.names().collect::<Vec<_>>();
        let none = Flags::default();
        assert!(named(none).is_empty());
        let of_server = Flags { undelivered: Some("first_byte_timeout"), ..none };
        assert_eq!(named(of_server), ["undelivered", "timeout"]);
        assert_eq!(named(Flags { refused: Some(Fault::BodyTimeout), ..none }), ["refused", "timeout"]);
        assert_eq!(named(Flags { undelivered: Some("refused"), ..none }), ["undelivered"]);
    }
}
