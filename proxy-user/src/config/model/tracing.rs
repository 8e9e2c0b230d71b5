//! `[tracing]` and `[metrics]`, valid.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::ServiceTls;
pub use crate::config::written::OtlpProtocol;

/// Where something is sent by OTLP.
#[derive(Debug, Clone)]
pub struct Collector {
    /// `http` or `https`, with a host; its path is the one that is asked for.
    pub endpoint: Uri,
    /// With `https`.
    pub tls: Option<ServiceTls>,
    pub protocol: OtlpProtocol,
    /// Default `weir`.
    pub service: String,
    pub attributes: Vec<(String, String)>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Default 10 s.
    pub timeout: Duration,
}

/// Where spans go, and of which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    pub collector: Collector,
    /// Hundredths of a percent. Default 1 %.
    pub sample: u32,
    pub parent: ParentTrust,
}

/// Whose `traceparent` is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentTrust {
    /// Of the peers that the entrypoint believes about clients. The default.
    Trusted,
    Always,
    Never,
}

/// Where metrics are pushed to, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    pub collector: Collector,
    /// Default 1 min.
    pub every: Duration,
}

impl PartialEq for Collector {
    fn eq(&self, other: &Self) -> bool {
        let Self { endpoint, tls, protocol, service, attributes, headers, timeout } = self;
        let same_tls = match (tls, &other.tls) {
            (None, None) => true,
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        };
        same_tls
            && *endpoint == other.endpoint
            && *protocol == other.protocol
            && *service == other.service
            && *attributes == other.attributes
            && *headers == other.headers
            && *timeout == other.timeout
    }
}
