//! Routes that get in each other's way: the same requests twice, the same name twice, and routes that no request can
//! take since another one goes before them. Configurations have tens of thousands of routes: nothing here compares each
//! with each.

use std::collections::HashMap;

use super::{Placed, carried};
use crate::{
    config::{
        code::Code,
        findings::Findings,
        model::{Condition, HostMatch, Network, PathMatch, Route},
        source::FileId,
        value::quoted,
        written::{self, At},
    },
    routing::order::Order,
};

/// One request, one route: two of them may not match the same.
#[expect(clippy::mutable_key_type, reason = "a pattern is compared by its text, and that stays")]
pub fn same_requests(placed: &[Placed<'_>], findings: &mut Findings) {
    let mut known: HashMap<(&HostMatch, &PathMatch), Vec<usize>> = HashMap::new();
    for (nth, Placed { route, file, at }) in placed.iter().enumerate() {
        let mut first = None;
        for host in &route.hosts {
            let alike = known.entry((host, &route.path)).or_default();
            first = first.or(alike.iter().copied().find(|known| same(&placed[*known].route, route)));
            alike.push(nth);
        }
        let Some(first) = first.map(|first| &placed[first]) else { continue };
        let message = if first.route.name == route.name {
            format!("two routes match the same requests: {}", quoted(&route.name))
        } else {
            format!(
                "routes {} and {} match the same requests",
                quoted(&first.route.name),
                quoted(&route.name)
            )
        };
        findings
            .error(Code::DuplicateRoute, *file, &at.span, message)
            .related(first.file, &first.at.span, "the first one")
            .hint("give one of them another host, path, condition or entrypoint");
    }
}

/// Of two with a host and the path in common.
fn same(one: &Route, other: &Route) -> bool {
    let entrypoints = one.entrypoints.is_empty()
        || other.entrypoints.is_empty()
        || one.entrypoints.iter().any(|id| other.entrypoints.contains(id));
    entrypoints && one.priority == other.priority && one.when == other.when && one.not == other.not
}

/// Metrics tell routes apart by name.
pub fn same_names(placed: &[Placed<'_>], carried: &[carried::Placed<'_>], findings: &mut Findings) {
    let mut first_named: HashMap<&str, (FileId, &At<written::Route>)> = HashMap::new();
    let requests = placed.iter().map(|placed| (&*placed.route.name, placed.file, placed.at));
    let connections = carried.iter().map(|placed| (&*placed.route.name, placed.file, placed.at));
    for (name, file, at) in requests.chain(connections) {
        let Some((first_file, first)) = first_named.get(name) else {
            first_named.insert(name, (file, at));
            continue;
        };
        // Names that were made are alike where the routes differ in other things than host and path.
        let Some(name) = &at.value.name else { continue };
        let first_span = first.value.name.as_ref().map_or(&first.span, |name| &name.span);
        findings
            .error(
                Code::DefinedTwice,
                file,
                &name.span,
                format!("two routes are named {}", quoted(&name.value)),
            )
            .related(*first_file, first_span, "first named here")
            .hint("logs and metrics tell routes apart by name");
    }
}

/// Warns of routes that no request can take.
#[expect(clippy::mutable_key_type, reason = "a pattern is compared by its text, and that stays")]
pub fn shadowed(placed: &[Placed<'_>], findings: &mut Findings) {
    // With a fault somewhere there are enough faults.
    if findings.failed() {
        return;
    }
    let lowest = placed.iter().map(|placed| placed.route.priority).min().unwrap_or_default();
    let mut raised = Vec::new();
    let mut alike: HashMap<(&HostMatch, &PathMatch), Vec<usize>> = HashMap::new();
    let mut by_pattern: HashMap<&HostMatch, Vec<usize>> = HashMap::new();
    for (nth, Placed { route, .. }) in placed.iter().enumerate() {
        if route.priority > lowest {
            raised.push(nth);
        }
        for host in &route.hosts {
            alike.entry((host, &route.path)).or_default().push(nth);
            if matches!(route.path, PathMatch::Regex(_)) {
                by_pattern.entry(host).or_default().push(nth);
            }
        }
    }
    let none = Vec::new();
    for (nth, Placed { route, file, at }) in placed.iter().enumerate() {
        let host = &route.hosts[0];
        let nearby = alike.get(&(host, &route.path)).unwrap_or(&none);
        let patterns = by_pattern.get(host).unwrap_or(&none);
        let mut others = nearby.iter().chain(patterns).chain(&raised).copied().filter(|other| *other != nth);
        let Some(first) = others.find(|other| goes_first(placed, *other, nth)) else { continue };
        let first = &placed[first];
        let message = format!(
            "route {} is never taken: route {} goes before it and matches all of its requests",
            quoted(&route.name),
            quoted(&first.route.name)
        );
        findings
            .warning(Code::UnreachableRoute, *file, &at.span, message)
            .related(first.file, &first.at.span, "this one goes first")
            .hint("docs/routing.md has the order; `priority` overrides it");
    }
}

/// Whether `first` matches everything that `second` matches, and goes before it.
fn goes_first(placed: &[Placed<'_>], first: usize, second: usize) -> bool {
    let (one, other) = (&placed[first].route, &placed[second].route);
    let entrypoints = one.entrypoints.is_empty()
        || (!other.entrypoints.is_empty() && other.entrypoints.iter().all(|id| one.entrypoints.contains(id)));
    let hosts = other.hosts.iter().all(|narrow| {
        one.hosts.iter().any(|wide| {
            host_covers(wide, narrow) && (Order::of(one, wide), first) < (Order::of(other, narrow), second)
        })
    });
    entrypoints
        && hosts
        && path_covers(&one.path, &other.path)
        && one.when.iter().all(|wide| other.when.iter().any(|narrow| covers(wide, narrow)))
        && one.not.iter().all(|excluded| other.not.contains(excluded))
}

fn host_covers(wide: &HostMatch, narrow: &HostMatch) -> bool {
    match (wide, narrow) {
        (HostMatch::Any, _) => true,
        (HostMatch::Wildcard(suffix), HostMatch::Exact(name) | HostMatch::Wildcard(name)) => {
            name.strip_suffix(&**suffix).is_some_and(|rest| rest.ends_with('.')) || wide == narrow
        }
        (HostMatch::Regex(pattern), HostMatch::Exact(name)) => pattern.matches(name),
        _ => wide == narrow,
    }
}

fn path_covers(wide: &PathMatch, narrow: &PathMatch) -> bool {
    match (wide, narrow) {
        (PathMatch::Prefix(prefix), PathMatch::Prefix(path) | PathMatch::Exact(path)) => {
            crate::routing::is_under(path, prefix)
        }
        (PathMatch::Prefix(prefix), PathMatch::Regex(_)) => **prefix == *"/",
        (PathMatch::Regex(pattern), PathMatch::Exact(path)) => pattern.matches(path),
        (PathMatch::Regex(pattern), _) => matches!(pattern.as_str(), ".*" | "/.*") || wide == narrow,
        (PathMatch::Exact(_), _) => wide == narrow,
    }
}

fn covers(wide: &Condition, narrow: &Condition) -> bool {
    match (wide, narrow) {
        (Condition::Method(wide), Condition::Method(narrow)) => {
            narrow.iter().all(|method| wide.contains(method))
        }
        (Condition::Client(wide), Condition::Client(narrow)) => {
            narrow.iter().all(|narrow| wide.iter().any(|wide| network_covers(wide, narrow)))
        }
        _ => wide == narrow,
    }
}

fn network_covers(wide: &Network, narrow: &Network) -> bool {
    match (wide, narrow) {
        (Network::Prefix(wide), Network::Prefix(narrow)) => wide.contains(narrow),
        _ => wide == narrow,
    }
}
