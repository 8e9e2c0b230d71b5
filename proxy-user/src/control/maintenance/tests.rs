//! What is made of orders and of what is written.

use std::path::Path;

use super::*;
use crate::config::load_text;

const TEXT: &str = r#"
[entrypoint.web]
bind = "127.0.0.1:8080"
[allowlist.office]
prefixes = ["203.0.113.0/24"]
[service.app]
servers = ["10.0.0.1:80"]
[[route]]
name = "shop"
host = "shop.example.com"
service = "app"
[[route]]
name = "rest"
service = "app"
[[maintenance]]
route = "shop"
weekly = { days = ["sun"], from = "02:00", until = "04:00" }
why = "every week"
[[maintenance]]
from = "2026-12-01T00:00Z"
until = "2026-12-02T00:00Z"
allow = ["office"]
"#;

fn config() -> Config {
    load_text(Path::new("weir.toml"), TEXT).unwrap_or_else(|report| panic!("{report}")).config
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn wanted() -> Maintain {
    Maintain {
        here: false,
        routes: Vec::new(),
        hosts: Vec::new(),
        allow: Vec::new(),
        except: Vec::new(),
        from: None,
        until: None,
        page: "maintenance".into(),
        why: String::new(),
    }
}

/// Why each window that holds is there.
fn holding(ordered: &[Ordered], route: &str, client: &str, now: &str) -> Option<String> {
    let (plan, _) = planned(ordered, &config(), at(now));
    let window = plan.holding(route, "shop.example.com", "/", client.parse().unwrap(), at(now))?;
    Some(window.about.why.clone())
}

#[test]
fn orders_go_before_what_is_written_and_windows_come_and_go() {
    let order = Maintain { why: "by hand".into(), until: Some(at("2026-11-22T03:00:00Z")), ..wanted() };
    let ordered = [valid(order, &config(), at("2026-11-22T00:00:00Z"), 1).unwrap()];
    let found = |now| holding(&ordered, "shop", "192.0.2.1", now);
    assert_eq!(found("2026-11-22T02:30:00Z").as_deref(), Some("by hand"));
    assert_eq!(found("2026-11-22T03:00:00Z").as_deref(), Some("every week"));
    assert_eq!(found("2026-11-22T04:00:00Z"), None);
    assert_eq!(holding(&[], "rest", "192.0.2.1", "2026-11-22T03:00:00Z"), None);
    assert_eq!(holding(&[], "rest", "192.0.2.1", "2026-12-01T00:00:00Z").as_deref(), Some(""));
    assert_eq!(holding(&[], "rest", "203.0.113.7", "2026-12-01T00:00:00Z"), None, "the office gets through");
}

#[test]
fn the_plan_holds_what_is_near_and_tells_when_it_changes() {
    let config = config();
    let windows = |now: &str| {
        let (plan, next) = planned(&[], &config, at(now));
        (plan.windows.len(), next)
    };
    assert_eq!(windows("2026-11-21T00:00:00Z"), (0, Some(at("2026-11-22T02:00:00Z"))));
    assert_eq!(windows("2026-11-22T01:59:00Z"), (1, Some(at("2026-11-22T02:00:00Z"))));
    assert_eq!(windows("2026-11-22T02:00:00Z"), (1, Some(at("2026-11-22T04:00:00Z"))));
    let (plan, _) = planned(&[], &config, at("2026-11-21T00:00:00Z"));
    assert_eq!(plan.all.len(), 2, "people see those that are far away too");
}

#[test]
fn an_order_that_makes_no_sense_is_refused_in_a_sentence() {
    let now = at("2026-11-22T00:00:00Z");
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (order, why) in [
        (Maintain { routes: texts(&["shp"]), ..wanted() }, "there is no route `shp`; did you mean `shop`?"),
        (
            Maintain { hosts: texts(&["https://a.example"]), ..wanted() },
            "`https://a.example` begins with `https://`; write `a.example`",
        ),
        (
            Maintain { allow: texts(&["ofice"]), ..wanted() },
            "there is no allowlist `ofice`; did you mean `office`?",
        ),
        (
            Maintain { allow: texts(&["10.1.2.3/8"]), ..wanted() },
            "`10.1.2.3/8` has bits set behind its length of 8; write `10.0.0.0/8` for the whole range, or `10.1.2.3` for the one host",
        ),
        (Maintain { except: texts(&["/"]), ..wanted() }, "`--except /` lets everything through"),
        (Maintain { page: "sory".into(), ..wanted() }, "there is no page `sory`"),
        (Maintain { until: Some(now), ..wanted() }, "it would have ended already: `--until` is in the past"),
        (
            Maintain {
                from: Some(at("2026-11-23T00:00:00Z")),
                until: Some(at("2026-11-22T12:00:00Z")),
                ..wanted()
            },
            "it ends before it begins",
        ),
        (Maintain { why: "a\nb".into(), ..wanted() }, "`--why` takes at most 200 printable characters"),
    ] {
        assert_eq!(valid(order, &config(), now, 1), Err(why.to_owned()));
    }
}

#[test]
fn what_has_gone_since_it_was_ordered_lets_nobody_through() {
    let order = Maintain { allow: vec!["office".into()], routes: vec!["shop".into()], ..wanted() };
    let mut ordered = valid(order, &config(), at("2026-11-21T00:00:00Z"), 1).unwrap();
    ordered.allow = vec!["gone".into()];
    ordered.routes = vec!["gone".into()];
    let found = |route| holding(std::slice::from_ref(&ordered), route, "203.0.113.7", "2026-11-21T00:00:00Z");
    assert_eq!((found("gone").as_deref(), found("shop")), (Some(""), None));
}
