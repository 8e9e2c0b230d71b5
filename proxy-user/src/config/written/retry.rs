//! `retry` and `hedge` of a service, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List};
use crate::config::default;

/// When a request goes to another server. `docs/failover.md` has the whole table.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// To so many servers a request is sent at most; 1: never again. Servers that it could not be sent to don't count.
    #[schemars(range(min = 1, max = 10), extend("default" = default::RETRY_ATTEMPTS))]
    pub attempts: Option<At<i64>>,
    /// So long after the first attempt began no further one begins: a duration, 1ms to 24h.
    #[schemars(extend("default" = default::RETRY_WITHIN))]
    pub within: Option<At<String>>,
    /// So much of a request's body is kept while it is sent, so that it can be sent again: 0B to 16MiB. A request with a
    /// longer body is sent once. A worker keeps 64 MiB at most, and repeats no further requests with a body meanwhile.
    #[schemars(extend("default" = default::RETRY_BUFFER))]
    pub buffer: Option<At<String>>,
    /// Methods that may be sent again beside GET, HEAD, OPTIONS, TRACE, PUT and DELETE. A server may then have carried
    /// such a request out without its answer being seen: only for servers that notice a repetition by themselves.
    #[schemars(example = ["POST"])]
    pub methods: Option<List>,
    /// Answers with these statuses send a request that may be repeated on to another server: single ones or ranges, from
    /// 400 to 599. An empty list: none. When no other server gives a better answer, the client gets the server's own.
    #[schemars(example = ["429", "502-504"], extend("default" = [default::RETRY_STATUSES]))]
    pub statuses: Option<List>,
    /// How many of a service's requests under way may be repetitions: a percentage, 0% to 100%. Three may be at any time,
    /// except with 0%.
    #[schemars(extend("default" = default::RETRY_BUDGET))]
    pub budget: Option<At<String>>,
    /// From the second repetition on a request waits before it: a random time up to this, doubled with each, up to
    /// 1 s. A duration, 0s to 10s.
    #[schemars(extend("default" = default::RETRY_BACKOFF))]
    pub backoff: Option<At<String>>,
}

/// Asks another server too when the first one takes long; the first answer goes to the client, the other is given up. For
/// requests that may be repeated, once their body is whole.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// After which time: a duration, 1ms to 1m, or the time in which so many percent of this service's answers came
    /// lately: `p50` to `p99`.
    #[schemars(required, example = &"p95")]
    pub after: Option<At<String>>,
    /// So many percent of the requests may be asked twice, over a while: a percentage, 1% to 100%.
    #[schemars(extend("default" = default::HEDGE_MOST))]
    pub most: Option<At<String>>,
}
