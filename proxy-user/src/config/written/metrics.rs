//! `[metrics]`, as written. What it says of the collector is as in `[tracing]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Name, OtlpProtocol};
use crate::config::default;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The collector: `http://HOST:PORT` or `https://HOST:PORT`. Over `http`, a path may follow; without one it is
    /// `/v1/metrics`.
    #[schemars(required, example = "http://127.0.0.1:4317")]
    pub endpoint: Option<At<String>>,
    /// How the collector is spoken to.
    #[schemars(extend("default" = "grpc"))]
    pub protocol: Option<At<OtlpProtocol>>,
    /// How often everything is pushed: a duration, 1s to 1h. Sums are cumulative: a push that is missed loses nothing but its
    /// moment.
    #[schemars(extend("default" = default::PUSH_EVERY))]
    pub every: Option<At<String>>,
    /// `service.name` of all metrics.
    #[schemars(extend("default" = default::OTLP_SERVICE))]
    pub service: Option<At<String>>,
    /// More attributes of this host, as `resource` of all metrics.
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
