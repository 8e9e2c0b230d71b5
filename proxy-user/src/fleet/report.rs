//! What a host says of itself in the store, for `weir fleet status` and for whoever waits for a push.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::variants::statistics::Share;

/// A host's word, as it stands under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub layout: u32,
    pub host: String,
    /// Of weir.
    pub version: String,
    /// When it was written, in milliseconds since 1970 by the host's clock.
    pub at: i64,
    #[serde(flatten)]
    pub standing: Standing,
    #[serde(flatten)]
    pub figures: Figures,
    /// What a newer weir wrote.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Which generation a host runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// The one that runs; `None`: none of the store's.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Since when, in milliseconds since 1970.
    #[serde(default)]
    pub since: i64,
    /// The last one that it could not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
}

/// A generation that a host can't run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejected {
    pub generation: u64,
    pub why: String,
}

/// How a host is. Counters begin with its daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// It can do its work, and is meant to.
    #[serde(default)]
    pub ready: bool,
    #[serde(default)]
    pub draining: bool,
    #[serde(default)]
    pub requests: u64,
    /// Of them, those that were answered with a status of 500 or more.
    #[serde(default)]
    pub failed: u64,
    /// Packets that the gate dropped.
    #[serde(default)]
    pub drops: u64,
    #[serde(default)]
    pub servers: usize,
    #[serde(default)]
    pub servers_down: usize,
}

impl Figures {
    /// Of the requests, those that failed.
    #[must_use]
    pub fn failures(&self) -> Share {
        Share { hits: self.failed, all: self.requests }
    }

    /// Whether this is news that shouldn't wait for the next report.
    #[must_use]
    pub fn differ(&self, before: &Self) -> bool {
        (self.ready, self.draining, self.servers_down) != (before.ready, before.draining, before.servers_down)
    }
}

/// A reason, short enough to be kept for every host.
#[must_use]
pub fn shortened(why: &str) -> String {
    const MOST: usize = 600;
    let why = why.trim();
    match why.char_indices().nth(MOST) {
        None => why.to_owned(),
        Some((end, _)) => format!("{} …", &why[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_version_is_read_as_far_as_it_is_known() {
        let newer = br#"{"layout":1,"host":"edge-1","version":"0.9.0","at":5,"generation":7,"since":4,"ready":true,"mood":"good"}"#;
        let report: Report = serde_json::from_slice(newer).unwrap();
        assert_eq!((report.standing.generation, report.figures.ready), (Some(7), true));
        let again = serde_json::to_value(&report).unwrap();
        assert_eq!(again["mood"], "good");
        assert_eq!(again["generation"], 7, "all stands beside each other: {again}");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened(" short\n"), "short");
        let long = "ä".repeat(2_000);
        assert_eq!(shortened(&long).chars().count(), 602);
    }
}
