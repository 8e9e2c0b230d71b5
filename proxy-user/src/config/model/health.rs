//! What a service says of its servers' health.

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

/// `health = { path = "/ping", every = "1s", timeout = "250ms", fall = 2, rise = 2 }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub ask: Ask,
    /// The name that the probe asks for. Default: the TLS server name, else the server's address.
    pub host: Option<HeaderValue>,
    /// Another port than the servers'.
    pub port: Option<u16>,
    /// Default 1 s; 10 ms to 1 h.
    pub every: Duration,
    /// From the first probe that says otherwise to the verdict. No longer than `every`.
    pub fast: Duration,
    /// Default 250 ms; no longer than `every`.
    pub timeout: Duration,
    /// So many failed probes in a row take a server out. Default 2; 1 to 100.
    pub fall: u32,
    /// So many successful probes in a row bring it back. Default 2; 1 to 100.
    pub rise: u32,
    /// In percent of the last probes: with so many of them good, no row of bad ones takes a server out. Default none.
    pub least: Option<u8>,
}

/// How a server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Http(Box<HttpCheck>),
    /// A connection is enough.
    Tcp,
    /// A handshake is enough.
    Tls,
    Script {
        /// At least one.
        steps: Vec<Step>,
        /// Also where the service itself has no TLS.
        tls: bool,
    },
    /// `grpc.health.v1` for this service; empty: for the server as a whole.
    Grpc(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: Method,
    /// Path and query of the probe, beginning with `/`.
    pub path: http::uri::PathAndQuery,
    /// At least one range. Default 200 to 399.
    pub status: Vec<RangeInclusive<u16>>,
    /// Each must be there; `None`: with any value.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub body: Option<BodyMatch>,
    /// By what answers ask for a drain.
    pub drain: DrainOn,
}

/// `drain_on = "404"`, `drain_header = "X-Drain"`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainOn {
    pub statuses: Vec<StatusCode>,
    pub header: Option<HeaderName>,
}

/// What an answer's body must hold.
#[derive(Debug, Clone)]
pub enum BodyMatch {
    Contains(Bytes),
    Regex(regex::bytes::Regex),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Send(Bytes),
    /// Never empty.
    Expect(Bytes),
}

/// `eject = { after = 5, for = "10s", longest = "5m", most = "50%", status = ["500"] }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row. Default 5; 1 to 1000.
    pub after: u32,
    /// Default 10 s; 100 ms to 1 h.
    pub first: Duration,
    /// Default 5 min; no shorter than `first`.
    pub longest: Duration,
    /// Percent of the service's servers. Default 50.
    pub most: u8,
    /// Which answers are failures. Default: none.
    pub status: Vec<RangeInclusive<u16>>,
}

/// `breaker = { errors = "50%", over = "10s", at_least = 20, open = "5s", recover = "10s" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Percent of requests without an answer.
    pub network: Option<u8>,
    /// Percent of requests without an answer, or with one from 500 to 599.
    pub errors: Option<u8>,
    /// Percent of requests that took longer than this.
    pub latency: Option<Slow>,
    /// Default 10 s; 1 s to 10 min.
    pub over: Duration,
    /// Default 20.
    pub at_least: u32,
    /// Default 5 s; 100 ms to 1 h.
    pub open: Duration,
    /// Default 10 s; up to 1 h.
    pub recover: Duration,
}

/// A quantile as a share: the 95th percentile is above a limit when more than 5 % of requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    pub limit: Duration,
    /// 1 to 99. Default 95.
    pub quantile: u8,
}

impl PartialEq for BodyMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Contains(one), Self::Contains(other)) => one == other,
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for BodyMatch {}
