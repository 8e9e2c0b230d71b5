//! The router against its documentation: cases, and a naive model that knows nothing of tables and trees.

use std::{cmp::Reverse, net::IpAddr};

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::{
    admission::PrefixSet,
    config::model::{Condition, EntrypointId, PathMatch, Pattern, Route, TextMatch},
    routing::{order::Order, rule::Test},
};

/// `host`: empty, a name, `*.name` or `~pattern`. `path`: a prefix, `=exact` or `~pattern`.
fn route(host: &str, path: &str) -> Route {
    let host = match host.strip_prefix('~') {
        Some(pattern) => HostMatch::Regex(Pattern::new(pattern).unwrap()),
        None => match (host, host.strip_prefix("*.")) {
            ("", _) => HostMatch::Any,
            (_, Some(suffix)) => HostMatch::Wildcard(suffix.into()),
            (host, None) => HostMatch::Exact(host.into()),
        },
    };
    let path = match (path.strip_prefix('~'), path.strip_prefix('=')) {
        (Some(pattern), _) => PathMatch::Regex(Pattern::new(pattern).unwrap()),
        (_, Some(exact)) => PathMatch::Exact(exact.into()),
        _ => PathMatch::Prefix(path.into()),
    };
    Route {
        name: "".into(),
        entrypoints: Vec::new(),
        hosts: vec![host],
        path,
        when: Vec::new(),
        not: Vec::new(),
        priority: 0,
        middleware: Vec::new(),
        service: None,
        pages: Vec::new(),
    }
}

fn rules<T>(route: &Route, target: T) -> Rule<T> {
    let test = |condition: &Condition| Test {
        condition: condition.clone(),
        clients: matches!(condition, Condition::Client(_))
            .then(|| PrefixSet::new(&["10.0.0.0/8".parse().unwrap()])),
    };
    Rule {
        order: Order::of(route, &route.hosts[0]),
        host: route.hosts[0].clone(),
        path: route.path.clone(),
        when: route.when.iter().map(test).collect(),
        not: route.not.iter().map(test).collect(),
        target,
    }
}

fn router<T: Copy>(routes: &[(&str, &str, T)]) -> Router<T> {
    Router::new(routes.iter().map(|&(host, path, target)| rules(&route(host, path), target)))
}

fn find<'a, T>(router: &'a Router<T>, host: &str, path: &str) -> Option<&'a T> {
    let headers = HeaderMap::new();
    router.find(&asked(host, path, &headers))
}

fn asked<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    Asked { host, path, query, method: &Method::GET, headers, client: IpAddr::from([10, 0, 0, 1]) }
}

#[test]
fn the_most_specific_route_wins_however_they_are_written() {
    let router = router(&[
        ("", "/", "rest"),
        ("*.example.com", "/", "wildcard"),
        ("*.eu.example.com", "/", "narrow wildcard"),
        ("~shop[0-9]+\\.example\\.(com|net)", "/", "pattern"),
        ("app.example.com", "/", "app"),
        ("app.example.com", "/api", "api"),
        ("app.example.com", "/api/v2", "api v2"),
        ("app.example.com", "=/api", "exactly api"),
        ("app.example.com", "~/api/v[0-9]+/old", "old"),
        ("only-api.example.com", "/api", "only api"),
    ]);
    for (host, path, target) in [
        ("app.example.com", "/", "app"),
        ("app.example.com", "*", "app"),
        ("APP.Example.Com:8443", "/x", "app"),
        ("app.example.com.", "/api", "exactly api"),
        ("app.example.com", "/api/", "api"),
        ("app.example.com", "/apis", "app"),
        ("app.example.com", "/api/v2", "api v2"),
        ("app.example.com", "/api/v2/users", "api v2"),
        ("app.example.com", "/api/v2/old", "old"),
        ("app.example.com", "/api/v2/old/x", "api v2"),
        ("other.example.com", "/", "wildcard"),
        ("a.b.example.com", "/", "wildcard"),
        ("a.eu.example.com", "/", "narrow wildcard"),
        ("shop1.example.com", "/", "wildcard"),
        ("shop1.example.net", "/", "pattern"),
        ("xshop1.example.net", "/", "rest"),
        ("example.com", "/", "rest"),
        ("[::1]:8080", "/", "rest"),
        ("", "/", "rest"),
        ("only-api.example.com", "/elsewhere", "wildcard"),
    ] {
        assert_eq!(find(&router, host, path), Some(&target), "{host}{path}");
    }
}

#[test]
fn a_request_that_no_route_matches_has_none() {
    let router = router(&[("app.example.com", "/api", "api")]);
    assert_eq!(find(&router, "app.example.com", "/"), None);
    assert_eq!(find(&router, "example.com", "/api"), None);
}

#[test]
fn a_wildcard_needs_a_label_in_front() {
    let router = router(&[("*.example.com", "/", ())]);
    for (host, found) in
        [("a.example.com", true), ("example.com", false), (".example.com", true), ("aexample.com", false)]
    {
        assert_eq!(find(&router, host, "/").is_some(), found, "{host}");
    }
}

#[test]
fn conditions_choose_among_routes_of_one_place() {
    let mut canary = route("a.example", "/");
    canary.when = vec![Condition::Header("x-canary".parse().unwrap(), TextMatch::Exact("1".into()))];
    let mut writes = route("a.example", "/");
    writes.when = vec![Condition::Method(vec![Method::POST, Method::PUT])];
    let mut preview = route("a.example", "/");
    preview.when = vec![
        Condition::Query("preview".into(), TextMatch::Regex(Pattern::new("[0-9]+").unwrap())),
        Condition::Client(Vec::new()),
    ];
    let mut raised = route("", "/");
    raised.priority = 1;
    raised.not = vec![Condition::Path(PathMatch::Prefix("/".into()))];
    let router = Router::new([
        rules(&route("a.example", "/"), "plain"),
        rules(&canary, "canary"),
        rules(&writes, "writes"),
        rules(&preview, "preview"),
        rules(&raised, "never"),
    ]);
    let mut headers = HeaderMap::new();
    assert_eq!(find(&router, "a.example", "/"), Some(&"plain"));
    assert_eq!(find(&router, "a.example", "/?x=1&preview=7"), Some(&"preview"));
    assert_eq!(find(&router, "a.example", "/?preview=x"), Some(&"plain"));
    headers.append("x-canary", HeaderValue::from_static("0"));
    assert_eq!(router.find(&asked("a.example", "/", &headers)), Some(&"plain"));
    headers.append("x-canary", HeaderValue::from_static("1"));
    assert_eq!(router.find(&asked("a.example", "/", &headers)), Some(&"canary"));
    let post = Asked { method: &Method::POST, ..asked("a.example", "/", &headers) };
    assert_eq!(router.find(&post), Some(&"canary"), "of equal ones the first");
    let elsewhere =
        Asked { client: IpAddr::from([11, 0, 0, 1]), ..asked("a.example", "/?preview=7", &headers) };
    assert_eq!(router.find(&elsewhere), Some(&"canary"));
}

// === the model ===

/// The order as `docs/routing.md` states it, worked out from the text alone.
fn documented(route: &Route) -> impl Ord {
    let host = match &route.hosts[0] {
        HostMatch::Exact(_) => (0, 0),
        HostMatch::Wildcard(suffix) => (1, -i64::try_from(suffix.len()).unwrap()),
        HostMatch::Regex(pattern) => (2, -i64::try_from(pattern.as_str().len()).unwrap()),
        HostMatch::Any => (3, 0),
    };
    let path = match &route.path {
        PathMatch::Exact(_) => (0, 0),
        PathMatch::Regex(pattern) => (1, -i64::try_from(pattern.as_str().len()).unwrap()),
        PathMatch::Prefix(path) => (2, -i64::try_from(path.trim_end_matches('/').len()).unwrap()),
    };
    let limited = usize::from(route.entrypoints.is_empty());
    (Reverse(route.priority), host, path, Reverse(route.when.len() + route.not.len()), limited)
}

fn matches(route: &Route, host: &str, path: &str, headers: &HeaderMap) -> bool {
    let host_fits = match &route.hosts[0] {
        HostMatch::Any => true,
        HostMatch::Exact(name) => **name == *host,
        HostMatch::Wildcard(suffix) => host.ends_with(&format!(".{suffix}")),
        HostMatch::Regex(pattern) => pattern.regex().find(host).is_some_and(|found| found.as_str() == host),
    };
    let path_fits = match &route.path {
        PathMatch::Prefix(prefix) => {
            format!("{path}/").starts_with(&format!("{}/", prefix.trim_end_matches('/')))
        }
        PathMatch::Exact(exact) => **exact == *path,
        PathMatch::Regex(pattern) => pattern.regex().find(path).is_some_and(|found| found.as_str() == path),
    };
    let holds = |condition: &Condition| match condition {
        Condition::Header(name, TextMatch::Exact(value)) => {
            headers.get(name).is_some_and(|given| given.as_bytes() == value.as_bytes())
        }
        other => panic!("the model doesn't know {other}"),
    };
    host_fits && path_fits && route.when.iter().all(holds) && !route.not.iter().any(holds)
}

fn some_route() -> impl Strategy<Value = Route> {
    let host = prop::sample::select(vec![
        "",
        "a.b",
        "b",
        "x.a.b",
        "*.b",
        "*.a.b",
        "~[ax]\\.b",
        "~.*a.*",
        "~.*",
        "~x?.?a\\.b",
        "~(a|b)+\\.?b?",
        "~[a-z.]{3}",
    ]);
    let path = prop::sample::select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/b",
        "=/",
        "=/a",
        "=/a/",
        "=/a/b",
        "~/a.*",
        "~.*/b",
        "~/[ab]/b",
        "~/.*",
        "~/a+",
        "~/(a|b)/.*",
    ]);
    let header = prop::option::weighted(0.3, prop::sample::select(vec!["1", "2"]));
    (host, path, -1..2_i32, header.clone(), header, any::<bool>()).prop_map(
        |(host, path, priority, when, not, limited)| {
            let condition =
                |value: &str| Condition::Header("x-c".parse().unwrap(), TextMatch::Exact(value.into()));
            Route {
                priority,
                when: when.into_iter().map(condition).collect(),
                not: not.into_iter().map(condition).collect(),
                entrypoints: if limited { vec![EntrypointId(0)] } else { Vec::new() },
                ..route(host, path)
            }
        },
    )
}

proptest! {
    // Sets of regular expressions take long to build without optimization.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_router_does_what_the_documentation_says(
        routes in prop::collection::vec(some_route(), 0..40),
        host in prop::sample::select(vec!["a.b", "b", "x.a.b", "y.x.a.b", "x.b", "c", ""]),
        path in "(/[ab]{0,2}){1,4}",
        header in prop::option::of(prop::sample::select(vec!["1", "2", "3"])),
    ) {
        let mut headers = HeaderMap::new();
        headers.extend(header.map(|value| (http::HeaderName::from_static("x-c"), HeaderValue::from_static(value))));
        let router = Router::new(routes.iter().enumerate().map(|(nth, route)| rules(route, nth)));
        let mut sorted: Vec<_> = routes.iter().enumerate().collect();
        sorted.sort_by_key(|(_, route)| documented(route));
        let expected = sorted.into_iter().find(|(_, route)| matches(route, host, &path, &headers));
        prop_assert_eq!(router.find(&asked(host, &path, &headers)).copied(), expected.map(|(nth, _)| nth));
    }
}
