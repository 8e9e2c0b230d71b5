//! `[[maintenance]]`, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List};
use crate::config::default;

/// A time in which a page stands in the servers' place. Without `from`, `until` and `weekly`, as long as it stands there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// The routes that are meant, by name. Without `route` and `host`, all.
    #[schemars(example = ["shop"])]
    pub route: Option<List>,
    /// The hosts that are meant, whatever their route: names, or `*.example.com`. With `route`, either will do.
    #[schemars(example = ["shop.example.com"])]
    pub host: Option<List>,
    /// When it begins: a date and time with its zone, `2026-12-01T22:00[Europe/Berlin]`, or with its offset,
    /// `2026-12-01T21:00Z` or `2026-12-01T22:00+01:00`.
    #[schemars(example = "2026-12-01T22:00[Europe/Berlin]")]
    pub from: Option<At<String>>,
    /// When it ends, written like `from`. Visitors are told to come back then.
    #[schemars(example = "2026-12-02T02:00[Europe/Berlin]")]
    pub until: Option<At<String>>,
    /// Every week, in the place of `from` and `until`.
    pub weekly: Option<At<Weekly>>,
    /// Who gets through to the servers all the same: names of allowlists, prefixes and addresses. Who a client is, the
    /// entrypoint's `client_ip` says.
    #[schemars(example = ["office", "198.51.100.0/24"])]
    pub allow: Option<List>,
    /// Paths that are let through, with all that is below them: a load balancer's health check, say.
    #[schemars(example = ["/health"])]
    pub except: Option<List>,
    /// The page that is shown.
    #[schemars(extend("default" = default::PAGE))]
    pub page: Option<At<String>>,
    /// What it is for, for `weir maintenance`.
    #[schemars(example = "moving the database")]
    pub why: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// The days on which it begins: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`.
    #[schemars(required, example = ["sun"])]
    pub days: Option<List>,
    /// The time of day at which it begins.
    #[schemars(required, example = "02:00")]
    pub from: Option<At<String>>,
    /// And ends; on the next day, if it is not later than `from`.
    #[schemars(required, example = "04:00")]
    pub until: Option<At<String>>,
    /// The time zone by whose clocks it goes, summer time included.
    #[schemars(extend("default" = default::ZONE), example = "Europe/Berlin")]
    pub zone: Option<At<String>>,
}
