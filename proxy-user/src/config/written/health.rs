//! What a service says of its servers' health: `health`, `eject` and `breaker`, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List, Name};
use crate::config::default;

/// One of `path`, `tcp`, `tls`, `send` and `expect`, `script` or `grpc` says how to ask; the rest says when, and what to make
/// of the answers. `docs/health.md` has an example for each.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Asks over HTTP: the path, with a query if need be.
    #[schemars(example = "/ping")]
    pub path: Option<At<String>>,
    /// Only with `path`: the method.
    #[schemars(extend("default" = "GET"))]
    pub method: Option<At<String>>,
    /// Only with `path`: which statuses are a success, as single ones and ranges.
    #[schemars(extend("default" = default::HEALTH_STATUS), example = ["200-299", "401"])]
    pub status: Option<List>,
    /// Only with `path`: fields that the answer must have. An empty value stands for any.
    #[serde(default)]
    pub expect_header: BTreeMap<Name, At<String>>,
    /// Only with `path`: a text that the first 64 KiB of the answer's body must hold.
    #[schemars(example = &"\"status\":\"ok\"")]
    pub expect_body: Option<At<String>>,
    /// Only with `path`: a regular expression that must match somewhere in the first 64 KiB of the answer's body.
    #[schemars(example = &"(?i)ready|degraded")]
    pub expect_body_regex: Option<At<String>>,
    /// Only with `path`: statuses of the answer by which a server asks to be drained: it gets no new work, and isn't taken for
    /// down.
    #[schemars(example = "404")]
    pub drain_on: Option<List>,
    /// Only with `path`: the name of a header by which it asks for the same, if the answer has it, whatever its value and the
    /// answer's status.
    #[schemars(example = "X-Drain")]
    pub drain_header: Option<At<String>>,
    /// `true`: a TCP connection is enough. The server's kernel answers that, also where the server hangs.
    pub tcp: Option<At<bool>>,
    /// `true`: a TLS handshake is enough. By the service's `tls`; without that, for the name in `host` and with any
    /// certificate, which is for servers that get passthrough. With `send`, `expect` or `script`: these go over TLS.
    pub tls: Option<At<bool>>,
    /// Sends this; what must come back is in `expect`. `\r`, `\n`, `\t`, `\0`, `\\` and `\x1f` stand for what they do
    /// elsewhere.
    #[schemars(example = &"PING\\r\\n")]
    pub send: Option<At<String>>,
    /// What must come within the next 64 KiB; after `send`, or at once.
    #[schemars(example = &"+PONG")]
    pub expect: Option<At<String>>,
    /// Several steps of `send` and `expect`, one after the other; at most 16.
    pub script: Option<Vec<At<Step>>>,
    /// Asks `grpc.health.v1.Health/Check` for this service, over HTTP/2; `""` is the server as a whole.
    #[schemars(example = &"shop.v1.Cart")]
    pub grpc: Option<At<String>>,
    /// The name that the probe asks for, in the Host field and, where the service has no `tls`, in the handshake. Without it,
    /// the TLS `server_name`; without that, the server's address.
    #[schemars(example = "app.example.com")]
    pub host: Option<At<String>>,
    /// Another port than the servers'.
    #[schemars(range(min = 1, max = 65_535), example = 8081)]
    pub port: Option<At<i64>>,
    /// From one probe to the next: a duration, 10ms to 1h.
    #[schemars(extend("default" = default::HEALTH_EVERY))]
    pub every: Option<At<String>>,
    /// The same between the first probe that says otherwise and the verdict: a duration, 10ms to 1h, no longer than `every`.
    /// Without it a quarter of `every`, but no shorter than `timeout` (or `every`, if that is shorter).
    #[schemars(example = &"250ms")]
    pub fast: Option<At<String>>,
    /// How long a probe may take: a duration, 1ms to 1h, no longer than `every`. An `every` below
    /// the default shortens the default with it.
    #[schemars(extend("default" = default::HEALTH_TIMEOUT))]
    pub timeout: Option<At<String>>,
    /// So many failed probes in a row take a server out.
    #[schemars(range(min = 1, max = 100), extend("default" = default::HEALTH_FALL))]
    pub fall: Option<At<i64>>,
    /// So many successful probes in a row bring it back.
    #[schemars(range(min = 1, max = 100), extend("default" = default::HEALTH_RISE))]
    pub rise: Option<At<i64>>,
    /// For a platform of many instances behind one address: beside `fall`, less than this share of the last 20 probes must have
    /// gone well before the server is taken out, `1%` to `100%`. A few bad instances then take out nobody. Without it `fall`
    /// decides alone.
    #[schemars(example = &"50%")]
    pub least: Option<At<String>>,
}

/// A step of `script`: `send`, `expect`, or first the one and then the other.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Sends this.
    #[schemars(example = &"EHLO probe\\r\\n")]
    pub send: Option<At<String>>,
    /// Waits until this has come.
    #[schemars(example = &"250 ")]
    pub expect: Option<At<String>>,
}

/// When a server gets no requests for a while because requests fail there, with or without probes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eject {
    /// After so many failures in a row.
    #[schemars(range(min = 1, max = 1000), extend("default" = default::EJECT_AFTER))]
    pub after: Option<At<i64>>,
    /// For how long the first time, and twice as long each time after: a duration, 100ms to 1h. Then it is tried again: one
    /// more failure ejects it anew, a success makes it one like the others.
    #[schemars(extend("default" = default::EJECT_FOR))]
    pub r#for: Option<At<String>>,
    /// But never longer than this: a duration, up to 24h. After as long without an ejection, it begins with `for` again.
    #[schemars(extend("default" = default::EJECT_LONGEST))]
    pub longest: Option<At<String>>,
    /// At most this share of the service's servers may be out at a time, those that are down counted too. A service with
    /// one server therefore ejects none, unless this is `100%`.
    #[schemars(extend("default" = default::EJECT_MOST))]
    pub most: Option<At<String>>,
    /// Answers that count as failures, beside refused, broken, silent and garbled connections: statuses and ranges. Without
    /// it, none.
    #[schemars(example = ["500", "502-504"])]
    pub status: Option<List>,
}

/// When a service as a whole gets no requests for a while. At least one of `network`, `errors` and `latency`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Opens when this share of requests got no answer from any server they were sent to.
    #[schemars(example = &"30%")]
    pub network: Option<At<String>>,
    /// Opens when this share of requests got no answer, or one from 500 to 599.
    #[schemars(example = &"50%")]
    pub errors: Option<At<String>>,
    /// Opens when the `quantile` of the time to an answer's first byte is longer than this: a duration, 1ms to 1h.
    #[schemars(example = &"2s")]
    pub latency: Option<At<String>>,
    /// Which quantile: 50% is the median.
    #[schemars(extend("default" = default::BREAKER_QUANTILE))]
    pub quantile: Option<At<String>>,
    /// Over which time all this is counted: a duration, 1s to 10m.
    #[schemars(extend("default" = default::BREAKER_OVER))]
    pub over: Option<At<String>>,
    /// Never opens on fewer requests than this within `over`.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = default::BREAKER_AT_LEAST))]
    pub at_least: Option<At<i64>>,
    /// How long it stays open: a duration, 100ms to 1h. Then one request is let through as a trial.
    #[schemars(extend("default" = default::BREAKER_OPEN))]
    pub open: Option<At<String>>,
    /// How long it takes, after a good trial, until all requests are let through again; the share grows with time: a
    /// duration, up to 1h. `0s`: all at once.
    #[schemars(extend("default" = default::BREAKER_RECOVER))]
    pub recover: Option<At<String>>,
}
