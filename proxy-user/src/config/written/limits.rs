//! `limits = { … }` of an entrypoint, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;
use crate::config::default;

/// What a client may send at most, and how long it may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Header fields of a request; with more it is refused with 431.
    #[schemars(range(min = 10, max = 1000), extend("default" = default::LIMIT_FIELDS))]
    pub fields: Option<At<i64>>,
    /// The size of a request's head, request line and header fields together: 1KiB to 1MiB. Longer ones are refused with
    /// 431, or with 414 if it is the request line that is too long.
    #[schemars(extend("default" = default::LIMIT_HEAD))]
    pub head: Option<At<String>>,
    /// How long a request's head may take: a duration, 1s to 1h. Then it is refused with 408; a connection that never said
    /// a word is closed.
    #[schemars(extend("default" = default::LIMIT_HEAD_TIME))]
    pub head_time: Option<At<String>>,
    /// How long a body that is on its way may stand still because of the client: a duration, 1s to 24h. A request that
    /// stands still is refused with 408, an answer that isn't taken is cut off.
    #[schemars(extend("default" = default::LIMIT_BODY_IDLE))]
    pub body_idle: Option<At<String>>,
    /// How long nothing may come from the server in the middle of an answer, or from either side of a WebSocket: a
    /// duration, 1s to 720h.
    #[schemars(extend("default" = default::LIMIT_STREAM_IDLE))]
    pub stream_idle: Option<At<String>>,
    /// How long a connection is kept for the next request: a duration, 1s to 24h.
    #[schemars(extend("default" = default::LIMIT_KEEP_ALIVE))]
    pub keep_alive: Option<At<String>>,
    /// Requests at a time over one connection of HTTP/2.
    #[schemars(range(min = 1, max = 10000), extend("default" = default::LIMIT_STREAMS))]
    pub streams: Option<At<i64>>,
    /// Connections at a time, of all clients together; 0 is no limit. Further ones are answered with 503, with TLS reset.
    #[schemars(range(min = 0, max = 10_000_000), extend("default" = default::LIMIT_CONNECTIONS))]
    pub connections: Option<At<i64>>,
    /// Connections at a time of one client: one IPv4 address or one IPv6 /64; 0 is no limit. Further ones are answered
    /// with 429, with TLS reset. Never applied to the peers that `client_ip.trust` names: a CDN's connections are those
    /// of many.
    #[schemars(range(min = 0, max = 10_000_000), extend("default" = default::LIMIT_CONNECTIONS_PER_CLIENT))]
    pub connections_per_client: Option<At<i64>>,
}
