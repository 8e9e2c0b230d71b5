//! What happened lately: servers that went down, configurations that were taken over, lists that changed, and who ordered
//! what. Told over the admin API to those who look (`GET /api/v1/events`), in the order in which it happened.
//!
//! One journal for the whole process, as there is one log: [`Note::write`] stands beside the log's line, wherever that is. It
//! holds the last [`KEPT`] events and no more. Nothing on a request's way writes here, but for the rare moment in which a
//! server is ejected or a breaker turns. Never a client's address, a path or a host: those belong into the access log alone.

pub mod watch;

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use utoipa::ToSchema;

/// So many events are kept.
pub const KEPT: usize = 1000;

/// The process's own.
pub static JOURNAL: Journal = Journal::new();

/// The last events, and who waits for more.
#[derive(Debug)]
pub struct Journal {
    ring: Mutex<Ring>,
    more: Notify,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    /// The number of the first that was ever written, and of the latest; 0: none was.
    first: u64,
    last: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up, also over restarts of the daemon: it begins with the milliseconds since 1970.
    pub id: u64,
    /// RFC 3339, to the millisecond.
    pub at: String,
    pub kind: Kind,
    pub level: Level,
    /// A sentence for people.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// As `weir status` spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowlist: Option<String>,
    /// Of configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Why, where somebody or something has given a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of a configuration that was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The host of the fleet at which it was ordered, if it was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// How much it wants to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EventLevel)]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// What kind of event it is. Names stay as they are; new ones may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EventKind)]
pub enum Kind {
    Started,
    Ending,
    /// This daemon has taken over from another one.
    Upgraded,
    /// Another binary was to take over, and did not; this one goes on.
    UpgradeFailed,
    /// A configuration was taken over.
    Reloaded,
    /// A configuration was refused; what ran before runs on.
    ReloadRefused,
    /// A configuration is on trial, until it is confirmed.
    TrialBegun,
    TrialConfirmed,
    TrialTakenBack,
    ServerUp,
    ServerDown,
    ServerEjected,
    /// One that was ejected answers again.
    ServerReadmitted,
    ServerDrained,
    ServerUndrained,
    HostDrained,
    HostUndrained,
    /// No server of the service takes requests: visitors get the page.
    ServiceDown,
    ServiceUp,
    BreakerOpened,
    BreakerRecovering,
    BreakerClosed,
    /// Servers changed by DNS.
    ServersResolved,
    MaintenanceOrdered,
    /// A page stands in the servers' place from now on.
    MaintenanceBegun,
    MaintenanceEnded,
    /// A list has other members now.
    AllowlistChanged,
    /// A list could not be fetched, or what was fetched is not believed.
    AllowlistFailed,
    AllowlistRecovered,
    CertificateWarning,
    CertificateWarningOver,
    CertificateOrdered,
    CertificateOrderFailed,
    /// A source of configuration can't be asked; what it gave last stays in force.
    ProviderAway,
    ProviderBack,
    /// A document is not taken over, or left out.
    DocumentFaulty,
    DocumentMended,
    /// A document defines what is defined before it.
    DocumentConflict,
    /// The fleet has another generation, for all hosts or for some.
    GenerationCurrent,
    /// Somebody has taken a generation of the fleet back.
    GenerationTakenBack,
    /// This host can't run a generation of the fleet.
    GenerationRefused,
    Blocked,
    Unblocked,
    SplitSet,
    /// What a judge of a split decided.
    SplitJudged,
    SynFloodBegun,
    SynFloodOver,
    /// The kernel does not enforce what it should.
    GateFailed,
}

/// An event that is being written.
#[derive(Debug)]
#[must_use = "`write` puts it into the journal"]
pub struct Note(Event);

/// What somebody missed, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub events: Vec<Event>,
    /// So many came in between and are not kept any more.
    pub lost: u64,
}

// === impl Journal ===

impl Journal {
    pub const fn new() -> Self {
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), first: 0, last: 0 }),
            more: Notify::const_new(),
        }
    }

    fn write(&self, mut event: Event, now: Timestamp) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has seen an event of the process before goes on with this one's, as long as it wrote less than one a
        // millisecond.
        let begin = u64::try_from(now.as_millisecond()).unwrap_or(0).max(1);
        ring.last = if ring.last == 0 { begin } else { ring.last + 1 };
        if ring.first == 0 {
            ring.first = begin;
        }
        event.id = ring.last;
        event.at = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
        drop(ring);
        self.more.notify_waiters();
    }

    /// The number of the latest event; 0: there is none.
    pub fn last(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// What came after the event `seen`. A number that is yet to come is somebody else's: then all that is kept.
    pub fn after(&self, seen: u64) -> Missed {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = if seen > ring.last { 0 } else { seen };
        let events: Vec<_> = ring.events.iter().filter(|event| event.id > seen).cloned().collect();
        // The numbers of an earlier process don't tell how many came after them.
        let oldest = ring.last + 1 - events.len() as u64;
        let lost = if seen >= ring.first { oldest - (seen + 1) } else { 0 };
        Missed { events, lost }
    }

    /// Waits for what comes after the event `seen`.
    pub async fn more_than(&self, seen: u64) {
        loop {
            // Registered before the look, so that no event falls between the two.
            let more = self.more.notified();
            if self.last() > seen {
                return;
            }
            more.await;
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Note ===

impl Note {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Event {
            id: 0,
            at: String::new(),
            kind,
            level: kind.level(),
            message: message.into(),
            entrypoint: None,
            service: None,
            server: None,
            allowlist: None,
            provider: None,
            why: None,
            generation: None,
            host: None,
        })
    }

    pub fn entrypoint(mut self, name: impl Into<String>) -> Self {
        self.0.entrypoint = Some(name.into());
        self
    }

    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.0.service = Some(name.into());
        self
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "addresses are small, and it reads better where it is called"
    )]
    pub fn server(mut self, label: impl ToString) -> Self {
        self.0.server = Some(label.to_string());
        self
    }

    pub fn allowlist(mut self, name: impl Into<String>) -> Self {
        self.0.allowlist = Some(name.into());
        self
    }

    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.0.provider = Some(name.into());
        self
    }

    /// Nothing is said where there is nothing to say.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.0.why = Some(why.into()).filter(|why| !why.is_empty());
        self
    }

    pub fn generation(mut self, generation: u64) -> Self {
        self.0.generation = Some(generation);
        self
    }

    /// Another host of the fleet, at which it was ordered.
    pub fn host(mut self, name: Option<&str>) -> Self {
        self.0.host = name.map(str::to_owned);
        self
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Into the process's journal.
    pub fn write(self) {
        JOURNAL.write(self.0, Timestamp::now());
    }
}

// === impl Kind ===

impl Kind {
    fn level(self) -> Level {
        match self {
            Self::ReloadRefused
            | Self::UpgradeFailed
            | Self::ServiceDown
            | Self::TrialTakenBack
            | Self::CertificateOrderFailed
            | Self::DocumentFaulty
            | Self::GenerationRefused
            | Self::GateFailed => Level::Error,
            Self::ServerDown
            | Self::ServerEjected
            | Self::HostDrained
            | Self::BreakerOpened
            | Self::MaintenanceBegun
            | Self::AllowlistFailed
            | Self::CertificateWarning
            | Self::ProviderAway
            | Self::DocumentConflict
            | Self::GenerationTakenBack
            | Self::SynFloodBegun => Level::Warning,
            Self::Started
            | Self::Ending
            | Self::Upgraded
            | Self::Reloaded
            | Self::TrialBegun
            | Self::TrialConfirmed
            | Self::ServerUp
            | Self::ServerReadmitted
            | Self::ServerDrained
            | Self::ServerUndrained
            | Self::HostUndrained
            | Self::ServiceUp
            | Self::BreakerRecovering
            | Self::BreakerClosed
            | Self::ServersResolved
            | Self::MaintenanceOrdered
            | Self::MaintenanceEnded
            | Self::AllowlistChanged
            | Self::AllowlistRecovered
            | Self::CertificateWarningOver
            | Self::CertificateOrdered
            | Self::ProviderBack
            | Self::DocumentMended
            | Self::GenerationCurrent
            | Self::Blocked
            | Self::Unblocked
            | Self::SplitSet
            | Self::SplitJudged
            | Self::SynFloodOver => Level::Info,
        }
    }

    /// As it is written in JSON.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn write(journal: &Journal, message: &str, millis: i64) {
        journal.write(Note::new(Kind::ServerUp, message).0, at(millis));
    }

    fn messages(missed: &Missed) -> Vec<&str> {
        missed.events.iter().map(|event| event.message.as_str()).collect()
    }

    #[test]
    fn events_count_up_from_the_time_of_the_first() {
        let journal = Journal::new();
        assert_eq!((journal.last(), journal.after(0).events.len()), (0, 0));
        write(&journal, "a", 1_700_000_000_000);
        write(&journal, "b", 1_700_000_000_000);
        let all = journal.after(0);
        assert_eq!(messages(&all), ["a", "b"]);
        assert_eq!(all.events[0].id, 1_700_000_000_000);
        assert_eq!(all.events[1].id, 1_700_000_000_001);
        assert_eq!(all.events[0].at, "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn whoever_has_seen_some_gets_the_rest() {
        let journal = Journal::new();
        for message in ["a", "b", "c"] {
            write(&journal, message, 5000);
        }
        assert_eq!(messages(&journal.after(5000)), ["b", "c"]);
        assert_eq!(messages(&journal.after(5002)), [""; 0]);
        assert_eq!(messages(&journal.after(1)), ["a", "b", "c"], "of an earlier process");
        assert_eq!(messages(&journal.after(9_000_000)), ["a", "b", "c"], "of another host");
    }

    #[test]
    fn the_oldest_are_forgotten_and_that_is_said() {
        let journal = Journal::new();
        for number in 0..KEPT + 10 {
            write(&journal, &number.to_string(), 10_000_000);
        }
        let missed = journal.after(10_000_000);
        assert_eq!((missed.events.len(), missed.lost), (KEPT, 9));
        assert_eq!(missed.events[0].message, "10");
        assert_eq!(journal.after(10_000_009).lost, 0);
        assert_eq!(journal.after(1).lost, 0, "an earlier process's numbers tell nothing");
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let journal = Journal::new();
        let waiting = journal.more_than(0);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        write(&journal, "a", 1);
        waiting.await;
        journal.more_than(0).await;
    }

    #[test]
    fn kinds_have_the_names_that_are_in_the_json() {
        assert_eq!(Kind::AllowlistChanged.name(), "allowlist_changed");
    }
}
