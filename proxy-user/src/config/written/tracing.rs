//! `[tracing]`, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Name};
use crate::config::default;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector: `http://HOST:PORT` or `https://HOST:PORT`. Over `http`, a path may follow; without one it is
    /// `/v1/traces`.
    #[schemars(required, example = "http://127.0.0.1:4317")]
    pub endpoint: Option<At<String>>,
    /// How the collector is spoken to.
    #[schemars(extend("default" = "grpc"))]
    pub protocol: Option<At<OtlpProtocol>>,
    /// The share of requests that are traced, of those whose caller hasn't decided it: `0%` to `100%`.
    #[schemars(extend("default" = default::TRACE_SAMPLE))]
    pub sample: Option<At<String>>,
    /// Whose `traceparent` is continued, with its decision whether the request is traced. Whoever isn't believed begins a new
    /// trace.
    #[schemars(extend("default" = "trusted"))]
    pub parent: Option<At<Parent>>,
    /// `service.name` of all spans.
    #[schemars(extend("default" = default::OTLP_SERVICE))]
    pub service: Option<At<String>>,
    /// More attributes of this host, as `resource` of all spans.
    #[schemars(example = "{ \"deployment.environment.name\" = \"production\" }")]
    #[serde(default)]
    pub attributes: BTreeMap<Name, At<String>>,
    /// Header fields for the collector, such as the key that it asks for. They are not shown.
    #[schemars(example = "{ \"x-api-key\" = \"…\" }")]
    #[serde(default)]
    pub headers: BTreeMap<Name, At<String>>,
    /// How long the collector may take to answer: a duration, 100ms to 1m.
    #[schemars(extend("default" = default::OTLP_TIMEOUT))]
    pub timeout: Option<At<String>>,
    /// A PEM file of the authorities to trust for `https`. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/collector-ca.pem")]
    pub ca: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// OTLP over gRPC; collectors listen at port 4317 for it.
    Grpc,
    /// OTLP over HTTP with protobuf; port 4318.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parent {
    /// Of peers that `client_ip.trust` of the entrypoint lists.
    Trusted,
    /// Of everybody: for entrypoints that only your own reach.
    Always,
    /// Of nobody.
    Never,
}
