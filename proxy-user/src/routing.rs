//! Which route a request takes: by host, then by path prefix; the most specific match wins.
//!
//! Order: an exact host before a wildcard, a longer wildcard before a shorter one, any wildcard before routes for
//! all hosts; within a host, the longest path prefix. A host whose routes don't match the path falls through to
//! the next. Pure: no I/O, and built anew for each snapshot.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::config::model::HostMatch;

/// The routes of one entrypoint, and what each leads to.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<Arc<str>, Paths<T>>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<Arc<str>, Paths<T>>,
    any: Paths<T>,
}

/// Path prefixes of one host, longest first.
#[derive(Debug)]
struct Paths<T>(Vec<(Arc<str>, T)>);

// === impl Router ===

impl<T> Router<T> {
    pub fn new(routes: impl IntoIterator<Item = (HostMatch, Arc<str>, T)>) -> Self {
        let mut router = Self { exact: HashMap::new(), wildcard: HashMap::new(), any: Paths(Vec::new()) };
        for (host, prefix, target) in routes {
            let paths = match host {
                HostMatch::Any => &mut router.any,
                HostMatch::Exact(host) => router.exact.entry(host).or_default(),
                HostMatch::Wildcard(suffix) => router.wildcard.entry(suffix).or_default(),
            };
            paths.0.push((prefix, target));
        }
        for paths in router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]) {
            // Stable: of equal prefixes the one that was written first wins.
            paths.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        router
    }

    /// The route for `host` (as in a Host field: any case, perhaps with a port) and `path`.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let host = canonical(host);
        // `OPTIONS *` asks about the server as a whole: where its root leads.
        let path = if path == "*" { "/" } else { path };
        if let Some(target) = self.exact.get(&*host).and_then(|paths| paths.find(path)) {
            return Some(target);
        }
        if !self.wildcard.is_empty() {
            let mut rest: &str = &host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(target) = self.wildcard.get(suffix).and_then(|paths| paths.find(path)) {
                    return Some(target);
                }
                rest = suffix;
            }
        }
        self.any.find(path)
    }
}

// === impl Paths ===

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Paths<T> {
    fn find(&self, path: &str) -> Option<&T> {
        self.0.iter().find(|(prefix, _)| is_under(path, prefix)).map(|(_, target)| target)
    }
}

/// Whether `path` is `prefix` or lies below it, by whole segments.
pub fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host without port and root dot, in lower case; borrowed when it already is so.
pub fn canonical(host: &str) -> Cow<'_, str> {
    let name = if host.starts_with('[') {
        // An IPv6 literal: `[::1]:443`.
        host.split_inclusive(']').next().unwrap_or(host)
    } else {
        host.split(':').next().unwrap_or(host)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(&str, &str, &'static str)]) -> Router<&'static str> {
        Router::new(routes.iter().map(|&(host, path, target)| {
            let host = match host {
                "" => HostMatch::Any,
                host => match host.strip_prefix("*.") {
                    Some(suffix) => HostMatch::Wildcard(suffix.into()),
                    None => HostMatch::Exact(host.into()),
                },
            };
            (host, path.into(), target)
        }))
    }

    #[test]
    fn the_most_specific_route_wins_however_they_are_written() {
        let router = router(&[
            ("", "/", "rest"),
            ("*.example.com", "/", "wildcard"),
            ("*.eu.example.com", "/", "narrow wildcard"),
            ("app.example.com", "/", "app"),
            ("app.example.com", "/api", "api"),
            ("app.example.com", "/api/v2/", "api v2"),
            ("only-api.example.com", "/api", "only api"),
        ]);
        for (host, path, target) in [
            ("app.example.com", "/", "app"),
            ("app.example.com", "*", "app"),
            ("APP.Example.Com:8443", "/x", "app"),
            ("app.example.com.", "/api", "api"),
            ("app.example.com", "/api/", "api"),
            ("app.example.com", "/apis", "app"),
            ("app.example.com", "/api/v2", "api v2"),
            ("app.example.com", "/api/v2/users", "api v2"),
            ("other.example.com", "/", "wildcard"),
            ("a.b.example.com", "/", "wildcard"),
            ("a.eu.example.com", "/", "narrow wildcard"),
            ("example.com", "/", "rest"),
            ("[::1]:8080", "/", "rest"),
            ("", "/", "rest"),
            ("only-api.example.com", "/elsewhere", "wildcard"),
        ] {
            assert_eq!(router.find(host, path), Some(&target), "{host}{path}");
        }
    }

    #[test]
    fn a_request_that_no_route_matches_has_none() {
        let router = router(&[("app.example.com", "/api", "api")]);
        assert_eq!(router.find("app.example.com", "/"), None);
        assert_eq!(router.find("example.com", "/api"), None);
    }
}
