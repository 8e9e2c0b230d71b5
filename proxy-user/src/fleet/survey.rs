//! What `weir fleet status` and `GET /api/v1/fleet` tell of all hosts: one document, read from the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::report::{Rejected, Report};
#[cfg(feature = "etcd")]
use super::{
    now,
    publish::{Ground, PublishFault},
};
use crate::store::layout::{Current, Halted};
#[cfg(feature = "etcd")]
use crate::store::{
    etcd::Session,
    layout::{HOSTS, KNOWN},
};

/// The fleet, as the store knows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FleetDocument {
    /// When this was read.
    pub at: String,
    /// The endpoint that told it.
    pub store: String,
    /// 0: nothing was pushed yet.
    pub generation: u64,
    pub previous: u64,
    pub digest: String,
    pub author: String,
    /// When it became current.
    pub since: String,
    /// The hosts that try it; empty: it is for all.
    pub canary: Vec<String>,
    /// So long it is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_seconds: Option<f64>,
    /// The last that was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halted>,
    pub hosts: Vec<HostStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostStatus {
    pub name: String,
    /// It was heard of within the last 15 s.
    pub there: bool,
    /// When it said this, by its own clock.
    pub at: String,
    pub version: String,
    /// The generation that it runs; `None`: none of the store's.
    pub generation: Option<u64>,
    pub since: String,
    /// The generation that is meant for it.
    pub wanted: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    pub ready: bool,
    pub draining: bool,
    pub requests: u64,
    pub failed: u64,
    pub drops: u64,
    pub servers: usize,
    pub servers_down: usize,
}

/// Reads it all.
///
/// # Errors
/// When the store is away, or what stands there can't be believed.
#[cfg(feature = "etcd")]
pub async fn read(session: &Session) -> Result<FleetDocument, PublishFault> {
    let ground = Ground::read(session).await?;
    let known = reports(session, KNOWN).await?;
    let there = reports(session, HOSTS).await?;
    Ok(document(session.endpoint(), ground.current.as_ref(), known, there, now()))
}

/// The reports below a key, by host.
#[cfg(feature = "etcd")]
pub(super) async fn reports(
    session: &Session,
    below: &str,
) -> Result<BTreeMap<String, Report>, PublishFault> {
    let read = session.list(below).await?;
    // What can't be read is another version's, or somebody's mistake: the rest is told.
    let report = |bytes: &[u8]| serde_json::from_slice(bytes).ok();
    Ok(read.found.into_iter().filter_map(|(name, stored)| Some((name, report(&stored.bytes)?))).collect())
}

#[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "there is no store to read from"))]
fn document(
    endpoint: &str,
    current: Option<&Current>,
    known: BTreeMap<String, Report>,
    there: BTreeMap<String, Report>,
    now: i64,
) -> FleetDocument {
    let mut all: BTreeMap<String, (Report, bool)> =
        known.into_iter().map(|(name, report)| (name, (report, false))).collect();
    all.extend(there.into_iter().map(|(name, report)| (name, (report, true))));
    let wanted = |host: &str| current.map_or(0, |current| current.wanted(host, now));
    let left = |by: i64| (by - now).max(0) as f64 / 1000.0;
    FleetDocument {
        at: shown(now),
        store: endpoint.to_owned(),
        generation: current.map_or(0, |current| current.generation),
        previous: current.map_or(0, |current| current.previous),
        digest: current.map(|current| current.digest.clone()).unwrap_or_default(),
        author: current.map(|current| current.author.clone()).unwrap_or_default(),
        since: current.map(|current| shown(current.at)).unwrap_or_default(),
        canary: current.map(|current| current.canary.clone()).unwrap_or_default(),
        confirm_within_seconds: current.and_then(|current| current.confirm_by).map(left),
        halted: current.and_then(|current| current.halted.clone()),
        hosts: all
            .into_iter()
            .map(|(name, (report, there))| HostStatus {
                there,
                at: shown(report.at),
                version: report.version,
                generation: report.standing.generation,
                since: shown(report.standing.since),
                wanted: wanted(&name),
                rejected: report.standing.rejected,
                ready: report.figures.ready,
                draining: report.figures.draining,
                requests: report.figures.requests,
                failed: report.figures.failed,
                drops: report.figures.drops,
                servers: report.figures.servers,
                servers_down: report.figures.servers_down,
                name,
            })
            .collect(),
    }
}

/// That a generation was taken back, by whom and why.
#[must_use]
pub fn taken_back(halted: &Halted) -> String {
    let Halted { generation, by, why, .. } = halted;
    format!("generation {generation} was taken back by {by}: {why}")
}

/// A moment for people and programs; empty: it never was.
#[must_use]
pub fn shown(millis: i64) -> String {
    match Timestamp::from_millisecond(millis) {
        Ok(at) if millis > 0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::report::{Figures, Standing},
        store::layout::LAYOUT,
    };

    fn report(host: &str, generation: u64) -> (String, Report) {
        let report = Report {
            layout: LAYOUT,
            host: host.to_owned(),
            version: "0.1.0".into(),
            at: 5_000,
            standing: Standing { generation: Some(generation), since: 4_000, rejected: None },
            figures: Figures { ready: true, ..Figures::default() },
            more: serde_json::Map::new(),
        };
        (host.to_owned(), report)
    }

    #[test]
    fn a_host_that_is_gone_is_told_with_its_last_word() {
        let current = Current::read(
            br#"{"layout":1,"generation":7,"digest":"d","previous":6,"latest":7,"at":1000,"canary":["edge-2"],"confirm_by":9000}"#,
        )
        .unwrap();
        let known = [report("edge-1", 5), report("edge-2", 6)].into();
        let there = [report("edge-2", 7), report("edge-3", 6)].into();
        let document = document("one:2379", Some(&current), known, there, 6_000);
        let hosts: Vec<_> = document
            .hosts
            .iter()
            .map(|host| (&*host.name, host.there, host.generation, host.wanted))
            .collect();
        assert_eq!(
            hosts,
            [("edge-1", false, Some(5), 6), ("edge-2", true, Some(7), 7), ("edge-3", true, Some(6), 6)]
        );
        assert_eq!(document.confirm_within_seconds, Some(3.0));
        assert_eq!(document.hosts[0].at, "1970-01-01T00:00:05Z");
        assert_eq!(document.since, "1970-01-01T00:00:01Z");
    }
}
