//! `[tracing]`, valid.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::ServiceTls;
pub use crate::config::written::TraceProtocol;

/// Where spans go, and of which requests.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// `http` or `https`, with a host; its path is the one that is asked for.
    pub endpoint: Uri,
    /// With `https`.
    pub tls: Option<ServiceTls>,
    pub protocol: TraceProtocol,
    /// Hundredths of a percent. Default 1 %.
    pub sample: u32,
    pub parent: ParentTrust,
    /// Default `weir`.
    pub service: String,
    pub attributes: Vec<(String, String)>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Default 10 s.
    pub timeout: Duration,
}

/// Whose `traceparent` is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentTrust {
    /// Of the peers that the entrypoint believes about clients. The default.
    Trusted,
    Always,
    Never,
}

impl PartialEq for Tracing {
    fn eq(&self, other: &Self) -> bool {
        let Self { endpoint, tls, protocol, sample, parent, service, attributes, headers, timeout } = self;
        let same_tls = match (tls, &other.tls) {
            (None, None) => true,
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        };
        same_tls
            && *endpoint == other.endpoint
            && *protocol == other.protocol
            && *sample == other.sample
            && *parent == other.parent
            && *service == other.service
            && *attributes == other.attributes
            && *headers == other.headers
            && *timeout == other.timeout
    }
}
