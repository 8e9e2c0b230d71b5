//! Routes with `passthrough`: what is understood, and the exact line that a slip gets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, time::Duration};

use proxy_user::config::{
    self, Loaded, diff,
    model::{EntrypointId, HostMatch},
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

/// An entrypoint of each kind, and services of each. It comes last, so that cases have the first lines.
const REST: &str = "
[entrypoint.https]
bind = '127.0.0.1:443'
tls = { certificates = 'c.pem' }
[entrypoint.http]
bind = '127.0.0.1:80'
[entrypoint.tcp]
bind = '127.0.0.1:25'
protocol = 'tcp'
[entrypoint.udp]
bind = '127.0.0.1:53'
protocol = 'udp'
[kernel]
interfaces = 'eth0'
[service.app]
servers = '10.0.0.1:80'
[service.old]
servers = '10.0.0.2:443'
timeouts = { idle = '5m', lifetime = '12h' }
[service.both]
split = { app = 1, old = 99 }
[service.copied]
service = 'app'
mirror = { to = 'old' }
[[route]]
host = 'copied.example.com'
service = 'copied'
[[route]]
entrypoint = 'udp'
passthrough = 'old'
[[route]]
name = 'all'
service = 'app'
";

fn load(case: &str) -> (TempDir, Result<Loaded, Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["app.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("c.pem"), own.pem() + &key.serialize_pem()).unwrap();
    fs::write(folder.path().join("weir.toml"), format!("{case}\n{REST}")).unwrap();
    let place = format!("{}/", folder.path().display());
    let loaded = config::load(&folder.path().join("weir.toml"))
        .map_err(|report| report.diagnostics.iter().map(|one| one.line().replace(&place, "")).collect());
    (folder, loaded)
}

#[test]
fn a_route_carries_names_wherever_they_are_read_and_ports_where_it_says_so() {
    let (_folder, loaded) = load(
        "[[route]]\nsni = ['Old.example.com', '*.old.example.com', 'old.example.com.']\npassthrough = 'both'\n\
         on_outage = 'page:maintenance'\n[[route]]\nname = 'mail'\nentrypoint = 'tcp'\npassthrough = 'old'",
    );
    let config = loaded.unwrap().config;
    let [by_name, mail, _] = config.carried.as_slice() else { panic!("{:?}", config.carried) };
    assert_eq!(&*by_name.name, "old.example.com");
    assert_eq!(
        by_name.sni,
        [HostMatch::Exact("old.example.com".into()), HostMatch::Wildcard("old.example.com".into())]
    );
    assert_eq!(by_name.entrypoints, [EntrypointId(0), EntrypointId(2)], "those that read names");
    assert_eq!(&*config.services[by_name.service.0].name, "both");
    assert_eq!(&*config.pages[by_name.on_outage.unwrap().0].name, "maintenance");
    assert_eq!((&*mail.name, mail.sni.len(), mail.on_outage), ("mail", 0, None));
    assert_eq!(mail.entrypoints, [EntrypointId(2)]);
    let timeouts = |name: &str| &config.services.iter().find(|one| *one.name == *name).unwrap().timeouts;
    assert_eq!(timeouts("app").idle, Duration::from_secs(3600));
    assert_eq!(timeouts("app").lifetime, None);
    assert_eq!(timeouts("old").idle, Duration::from_secs(300));
    assert_eq!(timeouts("old").lifetime, Some(Duration::from_secs(12 * 3600)));
}

#[test]
fn every_slip_has_its_place() {
    for (case, expected) in [
        (
            "[[route]]\nsni = 'a.example'",
            "[W016]: weir.toml:2:7: route `a.example` has `sni`, but no `passthrough`",
        ),
        (
            "[[route]]\npassthrough = 'old'",
            "[W016]: weir.toml:2:15: route `passthrough` has neither `sni` nor `entrypoint`",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'olt'",
            "[W012]: weir.toml:3:15: route `a.example` carries to service `olt`, which does not exist",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\nhost = 'b.example'",
            "[W027]: weir.toml:4:8: route `a.example` has `host` beside `passthrough`",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\nservice = 'app'",
            "[W027]: weir.toml:4:11: route `a.example` has `service` beside `passthrough`",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\nmiddleware = [{ strip_path = '/x' }]",
            "[W027]: weir.toml:4:15: route `a.example` has `middleware` beside `passthrough`",
        ),
        ("[[route]]\nsni = []\npassthrough = 'old'", "[W029]: weir.toml:2:7: route: sni is an empty list"),
        (
            "[[route]]\nsni = '192.0.2.1'\npassthrough = 'old'",
            "[W025]: weir.toml:2:7: route: sni `192.0.2.1` is an address, and hellos name none",
        ),
        (
            "[[route]]\nsni = 'a.*.example'\npassthrough = 'old'",
            "[W025]: weir.toml:2:7: route: sni `a.*.example` has a `*` in the wrong place",
        ),
        (
            "[[route]]\nentrypoint = 'https'\npassthrough = 'old'",
            "[W027]: weir.toml:2:14: route `https`: entrypoint `https` speaks HTTP: `passthrough` there needs `sni`",
        ),
        (
            "[[route]]\nentrypoint = 'http'\nsni = 'a.example'\npassthrough = 'old'",
            "[W027]: weir.toml:2:14: route `a.example`: entrypoint `http` has no `tls`: connections there have no `sni`",
        ),
        (
            "[[route]]\nentrypoint = 'udp'\nsni = 'a.example'\npassthrough = 'old'",
            "[W027]: weir.toml:2:14: route `a.example`: entrypoint `udp` carries datagrams, which have no `sni`",
        ),
        (
            "[[route]]\nentrypoint = 'tcp'\nhost = 'a.example'\nservice = 'app'",
            "[W027]: weir.toml:2:14: route `a.example` is one of HTTP, and entrypoint `tcp` carries connections untouched",
        ),
        (
            "[[route]]\nentrypoint = 'tcp'\nsni = 'a.example'\npassthrough = 'old'\non_outage = 'page:maintenance'",
            "[W027]: weir.toml:5:13: route `a.example`: `on_outage` at no entrypoint with `tls`: the page could be shown to nobody",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\non_outage = 'maintenance'",
            "[W005]: weir.toml:4:13: route `a.example`: on_outage `maintenance` is not a page",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\non_outage = 'page:maintenence'",
            "[W015]: weir.toml:4:19: route `a.example`: on_outage wants page `maintenence`, which does not exist",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'old'\n[[route]]\nname = 'b'\nsni = 'A.example'\npassthrough = 'app'",
            "[W020]: weir.toml:4:1: routes `a.example` and `b` both take the name `a.example` at entrypoint `https`",
        ),
        (
            "[[route]]\nentrypoint = 'tcp'\npassthrough = 'old'\n[[route]]\nname = 'b'\nentrypoint = 'tcp'\npassthrough = 'app'",
            "[W020]: weir.toml:4:1: routes `tcp` and `b` both take all connections at entrypoint `tcp`",
        ),
        (
            "[[route]]\nname = 'all'\nsni = 'a.example'\npassthrough = 'old'",
            "[W006]: weir.toml:2:8: two routes are named `all`",
        ),
        (
            "[[route]]\nsni = 'a.example'\npassthrough = 'copied'",
            "[W027]: weir.toml:3:15: route `a.example`: service `copied` mirrors requests, which a connection that isn't decrypted has none of",
        ),
        (
            "[service.x]\nservers = '10.0.0.9:1'\ntimeouts = { idle = '10ms' }",
            "[W008]: weir.toml:3:21: service `x`: timeouts.idle is `10ms`, out of range",
        ),
        (
            "[service.x]\nservers = '10.0.0.9:1'\ntimeouts = { lifetime = 'never' }",
            "[W008]: weir.toml:3:25: service `x`: timeouts.lifetime: `never` is not a duration",
        ),
    ] {
        let (_folder, loaded) = load(case);
        assert_eq!(loaded.map(|_| ()).unwrap_err(), [format!("error{expected}")], "in: {case}");
    }
}

#[test]
fn what_changes_is_told() {
    let config = |case: &str| load(case).1.unwrap().config;
    let before = config("[[route]]\nname = 'legacy'\nsni = 'a.example'\npassthrough = 'old'");
    let after = config("[[route]]\nname = 'legacy'\nsni = ['a.example', 'b.example']\npassthrough = 'both'");
    let changes = diff::of(&before, &after);
    let change =
        changes.iter().find(|change| (&*change.section, &*change.name) == ("route", "legacy")).unwrap();
    let keys: Vec<_> = change.keys.iter().map(|key| (&*key.key, key.after.as_deref().unwrap())).collect();
    assert_eq!(keys, [("passthrough", "both"), ("sni", "a.example, b.example")]);
}

#[test]
fn an_entrypoint_where_nothing_is_carried_is_warned_of() {
    let (_folder, loaded) = load("");
    let warnings: Vec<_> = loaded.unwrap().warnings.iter().map(config::Diagnostic::line).collect();
    let told = |text: &str| warnings.iter().any(|line| line.contains(text));
    assert!(told("no route applies to entrypoint `tcp`: every connection is closed"), "{warnings:?}");
    assert!(!told("entrypoint `udp`") && !told("service `old`"), "{warnings:?}");
}

#[test]
fn a_route_whose_host_is_carried_away_is_warned_of() {
    let told = |case: &str| -> Vec<String> {
        let (_folder, loaded) = load(case);
        let warnings = loaded.unwrap().warnings.iter().map(config::Diagnostic::line).collect::<Vec<_>>();
        warnings.into_iter().filter(|line| line.contains("never taken")).collect()
    };
    let sni = |names: &str| format!("[[route]]\nname = 'away'\nsni = {names}\npassthrough = 'old'\n");
    let host = |host: &str, more: &str| {
        format!(
            "{}[[route]]\nname = 'web'\nhost = '{host}'\nservice = 'app'\n{more}\n",
            sni("'*.shop.example'")
        )
    };
    for carried in ["a.shop.example", "b.a.shop.example", "*.shop.example", "*.a.shop.example"] {
        let warnings = told(&host(carried, ""));
        let expected = format!(
            "weir.toml:5:1: route `web` is never taken over TLS: connections for `{carried}` are carried away by route \
             `away`"
        );
        assert!(warnings.len() == 1 && warnings[0].ends_with(&expected), "{warnings:?}");
    }
    for not_carried in ["shop.example", "a.example", "*.example"] {
        assert_eq!(told(&host(not_carried, "")), [""; 0], "{not_carried}");
    }
    assert_eq!(
        told(&host("a.shop.example", "entrypoint = 'http'")),
        [""; 0],
        "it is meant for what isn't encrypted"
    );
    let elsewhere = "[entrypoint.inside]\nbind = '127.0.0.1:8443'\ntls = { certificates = 'c.pem' }\n";
    let here = host("a.shop.example", elsewhere).replace("sni = ", "entrypoint = 'https'\nsni = ");
    assert_eq!(told(&here), [""; 0], "another entrypoint has it");
}

#[test]
fn an_entrypoint_may_wait_for_its_address() {
    let config = |text: &str| load(text).1.unwrap().config;
    let of = |more: &str| format!("[entrypoint.shared]\nbind = '192.0.2.1:2525'\nprotocol = 'tcp'\n{more}");
    let (before, after) = (config(&of("")), config(&of("floating = true")));
    let changes = diff::of(&before, &after);
    let change = changes.iter().find(|change| &*change.name == "shared").unwrap();
    let keys: Vec<_> = change.keys.iter().map(|key| (&*key.key, key.after.as_deref().unwrap())).collect();
    assert_eq!(keys, [("floating", "true")]);
}
