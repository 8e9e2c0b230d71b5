//! Which of two routes goes first. Total and deterministic: `docs/routing.md` has it as a table, and the router, the
//! check for routes that can't be reached and `weir explain` all ask here.

use std::cmp::Reverse;

use crate::config::model::{HostMatch, PathMatch, Route};

/// The smaller goes first. Of equal ones the route that is written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    priority: Reverse<i32>,
    host: (u8, Reverse<usize>),
    path: (u8, Reverse<usize>),
    conditions: Reverse<usize>,
    /// Routes for some entrypoints before those for all.
    everywhere: bool,
}

impl Order {
    /// Of `route` with this one of its hosts.
    pub fn of(route: &Route, host: &HostMatch) -> Self {
        Self {
            priority: Reverse(route.priority),
            host: match host {
                HostMatch::Exact(_) => (0, Reverse(0)),
                HostMatch::Wildcard(suffix) => (1, Reverse(suffix.len())),
                HostMatch::Regex(pattern) => (2, Reverse(pattern.as_str().len())),
                HostMatch::Any => (3, Reverse(0)),
            },
            path: match &route.path {
                PathMatch::Exact(_) => (0, Reverse(0)),
                PathMatch::Regex(pattern) => (1, Reverse(pattern.as_str().len())),
                // `/` has no segment: its slash doesn't count.
                PathMatch::Prefix(path) => (2, Reverse(path.trim_end_matches('/').len())),
            },
            conditions: Reverse(route.when.len() + route.not.len()),
            everywhere: route.entrypoints.is_empty(),
        }
    }
}
