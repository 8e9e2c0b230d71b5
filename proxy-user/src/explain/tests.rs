//! Questions to one configuration, and the answers as a person reads them.

use std::path::Path;

use super::*;

const CONFIG: &str = r#"
[entrypoint.http]
bind = "127.0.0.1:80"
[entrypoint.side]
bind = "127.0.0.1:8080"
middleware = "office-only"
[middleware.office-only]
clients = { allow = ["192.0.2.0/24"] }
[middleware.api]
strip_path = "/api"
[middleware.moved]
redirect = { path = { regex = "/old/(.*)", to = "/new/$1" } }
[service.app]
servers = "10.0.0.1:80"
[service.canary]
servers = "10.0.0.2:80"
[[route]]
name = "app"
host = "app.example.com"
middleware = ["moved", "api", { add_path = "/v1" }]
service = "app"
[[route]]
name = "canary"
host = "app.example.com"
header = { X-Canary = "1" }
service = "canary"
[[route]]
name = "admin"
host = "app.example.com"
path = "/admin"
method = "POST"
not = { client = "192.0.2.66" }
service = "app"
[[route]]
name = "rest"
service = "app"
"#;

fn ask(url: &str, change: impl FnOnce(&mut Question)) -> Result<Explanation, String> {
    let config =
        crate::config::load_text(Path::new("weir.toml"), CONFIG).unwrap_or_else(|report| panic!("{report}"));
    let mut question =
        Question { url: url.to_owned(), method: get(), headers: Vec::new(), client: None, entrypoint: None };
    change(&mut question);
    explain(&config.config, None, &question)
}

#[test]
fn what_a_service_is_made_of_is_told_with_the_weights_that_hold() {
    let text = format!(
        "{CONFIG}[service.shop]\nsplit = {{ app = 20, safe = 80 }}\n[service.safe]\nfailover = ['app', 'canary']\n\
         [[route]]\nhost = 'shop'\nservice = 'shop'\n"
    );
    let config =
        crate::config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
    let question = Question {
        url: "http://shop/".into(),
        method: get(),
        headers: Vec::new(),
        client: None,
        entrypoint: None,
    };
    let explanation = explain(&config.config, None, &question).unwrap();
    let told = |explanation: &Explanation| -> Vec<_> {
        let parts = explanation.ways[0].parts.iter();
        parts
            .map(|part| format!("{} {}: {} {:?}", part.depth, part.service, part.when, part.servers))
            .collect()
    };
    let expected = [
        "0 app: 20.0 % of requests [\"10.0.0.1:80\"]",
        "0 safe: 80.0 % of requests []",
        "1 app: first [\"10.0.0.1:80\"]",
        "1 canary: when none before it can answer [\"10.0.0.2:80\"]",
    ];
    assert_eq!(told(&explanation), expected);
    let now = explanation.with_weights(|split, variant| {
        (split == "shop").then_some((if variant == "app" { 1 } else { 3 }, 4))
    });
    assert_eq!(told(&now)[0], "0 app: 25.0 % of requests, as set at run time [\"10.0.0.1:80\"]");
}

#[test]
fn the_way_of_a_request_is_told() {
    let explanation = ask("http://app.example.com/api/x?y=1", |_| {}).unwrap();
    let [way] = explanation.ways.as_slice() else { panic!("{explanation:?}") };
    assert_eq!((&*way.entrypoint, way.route.as_deref()), ("http", Some("app")));
    let does: Vec<_> = way.middleware.iter().map(|stop| (&*stop.kind, stop.does.as_deref())).collect();
    assert_eq!(
        does,
        [("redirect", None), ("strip_path", Some("/api/x → /x")), ("add_path", Some("/x → /v1/x"))]
    );
    assert_eq!((way.service.as_deref(), way.target.as_deref()), (Some("app"), Some("/v1/x?y=1")));
    let others: Vec<_> =
        way.others.iter().map(|other| format!("{}: {}", other.route, other.why.join(", "))).collect();
    assert_eq!(
        others,
        [
            "rest: matches too, but goes later",
            "canary: wants header x-canary=1; there is none",
            "admin: is for path /admin, not /api/x, wants method POST, not GET",
        ]
    );
}

#[test]
fn what_a_request_brings_changes_its_way() {
    for (url, method, header, client, entrypoint, route, answer) in [
        ("http://app.example.com/", "GET", Some(("x-canary", "1")), None, None, "canary", None),
        ("http://app.example.com/admin/x", "POST", None, None, None, "admin", None),
        ("http://app.example.com/admin/x", "POST", None, Some("192.0.2.66"), None, "app", None),
        ("http://app.example.com/%61dmin", "POST", None, None, None, "admin", None),
        ("http://elsewhere.example/", "GET", None, None, None, "rest", None),
        (
            "http://app.example.com/old/a?b",
            "GET",
            None,
            None,
            None,
            "app",
            Some("308 Permanent Redirect to http://app.example.com/new/a?b"),
        ),
        (
            "http://app.example.com/",
            "GET",
            None,
            Some("198.51.100.1"),
            Some("side"),
            "app",
            Some("403 Forbidden for 198.51.100.1"),
        ),
    ] {
        let explanation = ask(url, |question| {
            question.method = method.to_owned();
            question.headers.extend(header.map(|(name, value)| (name.to_owned(), value.to_owned())));
            question.client = client.map(|client| client.parse().unwrap());
            question.entrypoint = entrypoint.map(str::to_owned);
        });
        let way = explanation.unwrap().ways.remove(0);
        assert_eq!((way.route.as_deref(), way.answer.as_deref()), (Some(route), answer), "{url} {client:?}");
    }
}

#[test]
fn a_bad_question_is_told_what_is_wrong() {
    for (url, because) in [
        ("ftp://a.example/", "not a URL of a site"),
        ("app.example.com", "not a URL of a site"),
        ("http://a b/", "is not a URL"),
    ] {
        let why = ask(url, |_| {}).unwrap_err();
        assert!(why.contains(because), "{url}: {why}");
    }
    let why = ask("http://a.example/", |question| question.entrypoint = Some("no".into())).unwrap_err();
    assert_eq!(why, "there is no entrypoint `no`, but http, side");
    let way = ask("http://a.example/a/../b", |_| {}).unwrap().ways.remove(0);
    assert_eq!(way.answer.as_deref(), Some("400 Bad Request: refused for its path"));
}
