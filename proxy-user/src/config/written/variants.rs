//! What services are made of when they are made of services, as written. Read by services and by routes.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List};
use crate::config::default;

/// Requests are copied to another service, whose answers are thrown away.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The service that gets the copies. They carry `X-Weir-Mirrored: 1`.
    #[schemars(required, example = &"app-next")]
    pub to: Option<At<String>>,
    /// How many of the requests are copied, chosen at random: `0.01%` to `100%`.
    #[schemars(extend("default" = default::MIRROR_SHARE))]
    pub share: Option<At<String>>,
    /// A request whose body is longer, or of unknown length, is not copied: a size, 0B to 16MiB.
    #[schemars(extend("default" = default::MIRROR_BODY))]
    pub body_limit: Option<At<String>>,
    /// So many copies may be under way at a time; further ones are dropped and counted.
    #[schemars(range(min = 1, max = 10_000), extend("default" = default::MIRROR_AT_ONCE))]
    pub at_once: Option<At<i64>>,
    /// How long a copy may take with all of its answer: a duration, 10ms to 5m.
    #[schemars(extend("default" = default::MIRROR_TIMEOUT))]
    pub timeout: Option<At<String>>,
}

/// How a judge moves a split's requests over, and when it goes back. `weir split NAME --judge` starts it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The new variant: the one that is judged by the other one.
    #[schemars(required, example = &"app-next")]
    pub variant: Option<At<String>>,
    /// Which percentage of the requests the new variant gets, step by step: whole numbers that rise, 1 to 100.
    #[schemars(extend("default" = default::JUDGE_STEPS))]
    pub steps: Option<List>,
    /// How long each step takes at least: a duration, 1s to 720h.
    #[schemars(extend("default" = default::JUDGE_EVERY))]
    pub every: Option<At<String>>,
    /// By how much the new variant's error ratio may be above the old one's, in points of percentage: `0%` to `100%`.
    #[schemars(extend("default" = default::JUDGE_MARGIN_ERRORS))]
    pub margin_errors: Option<At<String>>,
    /// By how much the new variant's latency (its median, its 99th percentile) may be above the old one's: `0%` to
    /// `1000%`.
    #[schemars(extend("default" = default::JUDGE_MARGIN_LATENCY))]
    pub margin_latency: Option<At<String>>,
    /// How sure the judge is when it goes back, over all its steps and tests together: `50%` to `99.99%`.
    #[schemars(extend("default" = default::JUDGE_CONFIDENCE))]
    pub confidence: Option<At<String>>,
    /// Each step waits until both variants have had so many requests.
    #[schemars(range(min = 10, max = 1_000_000_000), extend("default" = default::JUDGE_MIN_SAMPLES))]
    pub min_samples: Option<At<i64>>,
}
