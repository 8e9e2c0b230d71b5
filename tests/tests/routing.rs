//! Routes by everything that they can ask about, and `weir explain` about the same requests.

use std::process::Command;

use anyhow::Context;
use weir_lab::{
    lab::{
        SITE,
        addresses::HTTP,
        client::{Browser, nothing},
        stand::Stand,
        weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// The server two for some, both for the rest.
const ROUTES: &str = r#"
[service.two]
servers = ["10.0.0.12:8080"]

[[route]]
name = "canary"
header = { X-Canary = { regex = "1|yes" } }
service = "two"

[[route]]
name = "exact"
host = ["app.example.com", { regex = "shop[0-9]+\\.example\\.com" }]
path = { exact = "/only" }
method = ["GET", "HEAD"]
not = { query = { both = "1" } }
service = "two"

[[route]]
name = "strangers"
client = "203.0.113.0/24"
priority = 10
middleware = [{ add_path = "/stranger" }]
service = "two"
"#;

fn stand() -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| {
        let routes = ROUTES.replace("app.example.com", SITE);
        format!("{toml}\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n{routes}")
    })
}

/// Whether server two alone answers such requests.
fn leads_to_two(
    browser: &Browser,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> anyhow::Result<bool> {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let mut request = browser.request(method, path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let reply = browser.send(request.body(nothing())?)?;
        seen.insert(reply.upstream().context("no server answered")?.to_owned());
    }
    Ok(!seen.contains("one"))
}

#[test]
fn routes_ask_about_more_than_host_and_path() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let visitor = &stand.visitor;
    for (method, path, fields, two) in [
        ("GET", "/", &[][..], false),
        ("GET", "/only", &[], true),
        ("GET", "/only?x=1", &[], true),
        ("GET", "/only?both=1", &[], false),
        ("GET", "/only?x&both=%31", &[], false),
        ("GET", "/only/", &[], false),
        ("POST", "/only", &[], false),
        // Of one host and another, the host decides before the header.
        ("GET", "/", &[("x-canary", "1")], false),
    ] {
        assert_eq!(leads_to_two(visitor, method, path, fields)?, two, "{method} {path} {fields:?}");
    }
    let plain = Browser::plain(&stand.lab.visitor, HTTP)?;
    let shop = plain.clone().with_host("shop7.example.com");
    assert!(leads_to_two(&shop, "GET", "/only", &[])?);
    assert!(leads_to_two(&plain.clone().with_host("elsewhere.example"), "GET", "/", &[("x-canary", "yes")])?);
    assert_eq!(plain.with_host("elsewhere.example").get("/")?.status, 404);
    let stranger = Browser::plain(&stand.lab.stranger, HTTP)?.with_host(SITE);
    assert!(leads_to_two(&stranger, "GET", "/", &[])?, "a priority goes before a host");
    Ok(())
}

#[test]
fn explain_says_what_really_happens_also_without_the_daemon() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let config = stand.weir.config().display().to_string();
    let site = |path: &str| format!("https://{SITE}{path}");
    for (url, more, told) in [
        (site("/only"), &[][..], &["route        exact", "service      two", "asked for    /only"][..]),
        (
            site("/only"),
            &["--method", "POST"],
            &["service      app", "exact: wants method GET HEAD, not POST"],
        ),
        (
            "http://elsewhere.example/x".to_owned(),
            &["--header", "X-Canary: 1"],
            &["route        canary", "entrypoint   http\n"],
        ),
        (
            "http://elsewhere.example/x?y=1".to_owned(),
            &["--client", "203.0.113.9"],
            &["route        strangers", "add_path): /x → /stranger/x", "asked for    /stranger/x?y=1"],
        ),
        (
            "http://elsewhere.example/x".to_owned(),
            &[],
            &["404 Not Found", "canary: wants header x-canary~1|yes; there is none"],
        ),
        (site("/a/../b"), &[], &["400 Bad Request: refused for its path"]),
    ] {
        for source in [&[][..], &["--config", &config]] {
            let arguments = [&["explain", &url], more, source].concat();
            let ran = weir::run(&stand.lab, &arguments)?;
            assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
            for text in told {
                assert!(ran.stdout.contains(text), "{arguments:?} doesn't tell {text:?}:\n{}", ran.stdout);
            }
        }
    }
    let ran = weir::run(&stand.lab, &["explain", &site("/only"), "--json"])?;
    let document: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(document["generation"], 1);
    assert_eq!(document["ways"][0]["route"], "exact");
    let ran = weir::run(&stand.lab, &["explain", "https://", "--json"])?;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    // With nothing that runs, the file that is there.
    let mut alone = Command::new(weir::program()?);
    alone.args(["explain", &site("/only"), "--config", &config]).env("WEIR_ADMIN", "unix:/nowhere");
    let ran = weir::finish(alone)?;
    assert!(ran.stdout.contains("route        exact"), "{} {}", ran.stdout, ran.stderr);
    Ok(())
}
