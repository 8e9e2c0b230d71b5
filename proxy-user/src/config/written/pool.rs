//! `[service.NAME] pool`, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;
use crate::config::default;

/// The connections to each server that wait for their next request. Every worker keeps its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// So many are opened ahead, and replaced when they end: 0 to 1000, no more than `idle`. Over HTTP/2 requests share a
    /// connection: one is opened.
    #[schemars(extend("default" = default::POOL_WARM))]
    pub warm: Option<At<i64>>,
    /// No more than so many are kept: 0 to 10000. With 0, each connection serves one request, and over HTTP/2 those that
    /// come while it lasts.
    #[schemars(extend("default" = default::POOL_IDLE))]
    pub idle: Option<At<i64>>,
    /// After this they are closed: a duration, 100ms to 1h. Keep it shorter than the servers do (Node.js: 5s), since a request
    /// that meets a connection that is being closed has to be sent again.
    #[schemars(extend("default" = default::POOL_IDLE_TIMEOUT))]
    pub idle_timeout: Option<At<String>>,
}
