//! Maintenance: windows of time in which a page stands in the servers' place, as somebody ordered (`weir maintenance`) or as
//! the configuration says. Pure but for [`Maintenance`], which workers look at.
//!
//! What holds when is worked out by the control side ([`crate::control::maintenance`]), which makes a [`Plan`] of it. A request
//! compares two numbers with the clock, and only while there is a plan at all.

pub mod store;
pub mod weekly;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{admission::PrefixSet, config::model::HostMatch, routing};

/// What holds, shared by all snapshots.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Nothing has to be looked at while it is off.
    on: AtomicBool,
    plan: ArcSwap<Plan>,
}

/// All windows that hold, or soon will. Those that somebody ordered go first, the latest before the others.
#[derive(Debug, Default)]
pub struct Plan {
    pub windows: Vec<Window>,
    /// All of them, for people: also those that are far away.
    pub all: Vec<About>,
}

#[derive(Debug)]
pub struct Window {
    pub scope: Scope,
    /// Who gets through.
    pub allow: PrefixSet,
    /// What gets through: these paths, with all that is below them.
    pub except: Vec<Arc<str>>,
    pub span: Span,
    pub page: Arc<str>,
    pub about: About,
}

/// Which requests are meant. Both lists empty: all.
#[derive(Debug, Default)]
pub struct Scope {
    pub routes: Vec<Arc<str>>,
    pub hosts: Vec<HostMatch>,
}

/// From the first moment to before the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Span {
    /// `None`: since ever.
    pub from: Option<Timestamp>,
    /// `None`: until somebody ends it.
    pub until: Option<Timestamp>,
}

/// A window as somebody ordered it. Kept as it was said: lists and routes may change behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    pub id: u64,
    pub routes: Vec<String>,
    pub hosts: Vec<String>,
    /// Prefixes, and names of allowlists.
    pub allow: Vec<String>,
    pub except: Vec<String>,
    #[serde(flatten)]
    pub span: Span,
    pub page: String,
    pub why: String,
    pub since: Timestamp,
}

/// What people are told of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct About {
    /// By which it can be ended; `None`: it stands in the configuration.
    pub id: Option<u64>,
    pub routes: Vec<String>,
    pub hosts: Vec<String>,
    pub allow: Vec<String>,
    pub except: Vec<String>,
    #[serde(flatten)]
    pub span: Span,
    /// How it comes again.
    pub weekly: Option<String>,
    pub page: String,
    pub why: String,
}

// === impl Maintenance ===

impl Maintenance {
    pub fn set(&self, plan: Plan) {
        let on = !plan.windows.is_empty();
        self.plan.store(Arc::new(plan));
        self.on.store(on, Ordering::Release);
    }

    /// Whether there is anything to look at.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }
}

// === impl Plan ===

impl Plan {
    /// The window that keeps a request from its servers. `host` is in lower case, without a port.
    pub fn holding(
        &self,
        route: &str,
        host: &str,
        path: &str,
        client: IpAddr,
        now: Timestamp,
    ) -> Option<&Window> {
        self.windows.iter().find(|window| {
            window.span.holds(now)
                && window.scope.covers(route, host)
                && !window.except.iter().any(|except| routing::is_under(path, except))
                && !window.allow.contains(client)
        })
    }
}

// === impl Window ===

impl Window {
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.span.until?.duration_since(now);
        Some(Duration::try_from(left).unwrap_or_default())
    }
}

// === impl Scope ===

impl Scope {
    pub fn covers(&self, route: &str, host: &str) -> bool {
        self.routes.is_empty() && self.hosts.is_empty()
            || self.routes.iter().any(|known| **known == *route)
            || self.hosts.iter().any(|known| known.matches(host))
    }
}

// === impl Span ===

impl Span {
    pub fn holds(self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && !self.is_over(now)
    }

    pub fn is_over(self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// When it begins or ends next.
    pub fn next_change(self, now: Timestamp) -> Option<Timestamp> {
        self.from.into_iter().chain(self.until).filter(|at| *at > now).min()
    }
}

// === impl Ordered ===

impl Ordered {
    pub fn about(&self) -> About {
        About {
            id: Some(self.id),
            routes: self.routes.clone(),
            hosts: self.hosts.clone(),
            allow: self.allow.clone(),
            except: self.except.clone(),
            span: self.span,
            weekly: None,
            page: self.page.clone(),
            why: self.why.clone(),
        }
    }

    /// Whether both are about the same requests, and begin alike: then the later one is meant instead.
    pub fn is_replaced_by(&self, other: &Self) -> bool {
        self.has_scope(&other.routes, &other.hosts) && self.span.from == other.span.from
    }

    pub fn has_scope(&self, routes: &[String], hosts: &[String]) -> bool {
        let same = |one: &[String], other: &[String]| {
            one.len() == other.len() && one.iter().all(|name| other.contains(name))
        };
        same(&self.routes, routes) && same(&self.hosts, hosts)
    }
}

// === impl About ===

impl About {
    /// `everything`, or what it is about.
    pub fn scope(&self) -> String {
        let routes = self.routes.iter().map(|name| format!("route {name}"));
        let all: Vec<_> = routes.chain(self.hosts.iter().map(|name| format!("host {name}"))).collect();
        if all.is_empty() { "everything".to_owned() } else { all.join(", ") }
    }

    /// `until …`, `from … until …`, or what else is known of its time.
    pub fn time(&self, now: Timestamp) -> String {
        let at = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let until = self
            .span
            .until
            .map_or_else(|| "until it is ended".to_owned(), |until| format!("until {}", at(until)));
        let text = match self.span.from {
            Some(from) if from > now => format!("from {} {until}", at(from)),
            _ => format!("on {until}"),
        };
        match &self.weekly {
            Some(weekly) => format!("{text} (weekly, {weekly})"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn span(from: Option<&str>, until: Option<&str>) -> Span {
        Span { from: from.map(at), until: until.map(at) }
    }

    fn window(routes: &[&str], hosts: &[HostMatch], span: Span, why: &str) -> Window {
        Window {
            scope: Scope {
                routes: routes.iter().map(|name| (*name).into()).collect(),
                hosts: hosts.to_vec(),
            },
            allow: PrefixSet::new(&["198.51.100.0/24".parse().unwrap()]),
            except: vec!["/health".into()],
            span,
            page: "maintenance".into(),
            about: About { why: why.to_owned(), ..About::default() },
        }
    }

    fn planned(windows: Vec<Window>) -> Plan {
        Plan { windows, all: Vec::new() }
    }

    #[test]
    fn a_window_holds_from_its_first_moment_to_before_its_last() {
        let span = span(Some("2026-11-21T10:00:00Z"), Some("2026-11-21T11:00:00Z"));
        for (now, holds, next) in [
            ("2026-11-21T09:59:59.999Z", false, Some("2026-11-21T10:00:00Z")),
            ("2026-11-21T10:00:00Z", true, Some("2026-11-21T11:00:00Z")),
            ("2026-11-21T10:59:59.999Z", true, Some("2026-11-21T11:00:00Z")),
            ("2026-11-21T11:00:00Z", false, None),
        ] {
            assert_eq!((span.holds(at(now)), span.next_change(at(now))), (holds, next.map(at)), "{now}");
        }
        assert!(Span::default().holds(at("2026-11-21T00:00:00Z")));
    }

    #[test]
    fn only_what_is_meant_is_kept_away_and_who_is_let_through_is_not() {
        let now = at("2026-11-21T10:00:00Z");
        let wildcard = HostMatch::Wildcard("example.com".into());
        let plan = planned(vec![window(&["shop"], &[wildcard], Span::default(), "")]);
        for (route, host, path, client, held) in [
            ("shop", "other.test", "/", "192.0.2.1", true),
            ("app", "www.example.com", "/", "192.0.2.1", true),
            ("app", "other.test", "/", "192.0.2.1", false),
            ("shop", "other.test", "/", "198.51.100.7", false),
            ("shop", "other.test", "/", "::ffff:198.51.100.7", false),
            ("shop", "other.test", "/health", "192.0.2.1", false),
            ("shop", "other.test", "/health/deep", "192.0.2.1", false),
            ("shop", "other.test", "/healthy", "192.0.2.1", true),
        ] {
            let found = plan.holding(route, host, path, client.parse().unwrap(), now);
            assert_eq!(found.is_some(), held, "{route} {host} {path} {client}");
        }
        let all = planned(vec![window(&[], &[], Span::default(), "")]);
        assert!(all.holding("any", "", "/", "192.0.2.1".parse().unwrap(), now).is_some());
    }

    #[test]
    fn the_first_window_that_holds_is_the_one() {
        let now = at("2026-11-21T10:00:00Z");
        let later = span(Some("2026-11-21T12:00:00Z"), None);
        let plan = planned(vec![
            window(&[], &[], later, "later"),
            window(&["shop"], &[], span(None, Some("2026-11-21T10:00:30Z")), "shop"),
            window(&[], &[], Span::default(), "all"),
        ]);
        let found = |route| plan.holding(route, "", "/", "192.0.2.1".parse().unwrap(), now).unwrap();
        assert_eq!(
            (&*found("shop").about.why, found("shop").left(now)),
            ("shop", Some(Duration::from_secs(30)))
        );
        assert_eq!((&*found("app").about.why, found("app").left(now)), ("all", None));
    }

    #[test]
    fn people_are_told_in_words() {
        let now = at("2026-11-21T10:00:00Z");
        let mut about =
            About { routes: vec!["shop".into()], hosts: vec!["a.example".into()], ..About::default() };
        assert_eq!(
            (about.scope(), about.time(now)),
            ("route shop, host a.example".into(), "on until it is ended".into())
        );
        about.span = span(Some("2026-11-21T12:00:00Z"), Some("2026-11-21T13:00:00Z"));
        assert_eq!(about.time(now), "from 2026-11-21T12:00:00Z until 2026-11-21T13:00:00Z");
        assert_eq!(About::default().scope(), "everything");
    }
}
