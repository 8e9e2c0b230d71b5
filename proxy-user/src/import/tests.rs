//! Whole files: what becomes of them, and that whatever comes in, what goes out is valid.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{Draft, Imported, Source, haproxy, nginx, settle, traefik};
use crate::config::{load_text, model::Config};

const NGINX: &str = include_str!("../../../tests/fixtures/import/nginx.conf");
const HAPROXY: &str = include_str!("../../../tests/fixtures/import/haproxy.cfg");
const TRAEFIK: [&str; 2] = [
    include_str!("../../../tests/fixtures/import/traefik.yml"),
    include_str!("../../../tests/fixtures/import/traefik-dynamic.yml"),
];

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), path: PathBuf::from("/nowhere").join(name), text: text.into() }
}

fn settled(draft: Draft) -> (Imported, Config) {
    let imported = settle(draft, Path::new("weir.toml"));
    let config = load_text(Path::new("weir.toml"), &imported.text)
        .unwrap_or_else(|report| panic!("{}\n{}", report.lines(), imported.text))
        .config;
    (imported, config)
}

fn left(imported: &Imported, what: &str) -> bool {
    imported.left_out.iter().any(|left| left.to_string().contains(what))
}

fn holds(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

#[test]
fn an_nginx_becomes_entrypoints_services_and_routes() {
    let (imported, config) = settled(nginx::import(&[source("nginx.conf", NGINX)]).unwrap());
    holds(
        &imported.text,
        &[
            "bind = [\"0.0.0.0:80\", \"[::]:80\"]",
            // There is no certificate where this test runs.
            "# tls = { certificates = [\"/etc/letsencrypt/live/shop.example.com\"]",
            "HELD BACK",
            "{ address = \"10.0.0.11:8080\", weight = 3 }",
            "{ address = \"10.0.0.99:8080\", tier = 2 }",
            "balance = \"least_requests\"",
            "hash_by = \"cookie:session\"",
            "eject = { after = 2, for = \"10s\" }",
            "timeouts = { connect = \"2s\", first_byte = \"1m\" }",
            "path = \"/api\"",
            "{ strip_path = \"/api\" }, { add_path = \"/v2\" }",
            "{ rate_limit = { burst = 5, by = \"client\", rate = \"30/m\" } }",
            "allow = [\"198.51.100.0/24\", \"2001:db8::/32\"]",
            "{ redirect = { scheme = \"https\", status = 301 } }",
            "host = \"www.shop.example.com\"",
            "client_ip = { header = \"CF-Connecting-IP\", trust = [\"proxies\"] }",
            "body_limit = \"20MiB\"",
        ],
    );
    for what in ["proxy_cache_path", "location /static/", "server 10.0.0.13:8080 down", "map $http_upgrade"] {
        assert!(left(&imported, what), "{what}: {:#?}", imported.left_out);
    }
    assert!(imported.held_back.iter().any(|(name, _)| name == "https"), "{:?}", imported.held_back);
    // One is of `stream`, and one of the route whose users can't be read here.
    assert_eq!((config.services.len(), config.carried.len()), (4, 1));
}

#[test]
fn a_haproxy_keeps_its_order_and_its_guards() {
    let (imported, config) = settled(haproxy::import(&[source("haproxy.cfg", HAPROXY)]).unwrap());
    holds(
        &imported.text,
        &[
            "\nredirect = \"https\"\nredirect_status = 301",
            "# tls = { certificates = [\"/etc/haproxy/certs/\"] }",
            "\nbind = [\"10.0.0.1:8080\"]",
            "{ clients = { allow = [\"10.0.0.0/8\"] } }",
            "{ clients = { deny = [\"203.0.113.0/24\", \"192.0.2.7\"] } }",
            // Its servers' authority can't be read here: it refuses, and lets nobody on to the next route.
            "\npriority = 1000\nhost = \"api.example.com\"\npath = \"/v2\"\nmiddleware = [{ clients = { deny =",
            "priority = 999\nhost = \"api.example.com\"",
            "hash_by = \"header:X-User\"",
            "sticky = { name = \"SRV\" }",
            "health = { every = \"2s\", fall = 3, path = \"/health\", rise = 2, status = [\"200\"] }",
            "tier = 2",
        ],
    );
    holds(&imported.text, &["[entrypoint.postgres]\nbind = [\"0.0.0.0:5432\"]\nprotocol = \"tcp\"\n"]);
    for what in ["errorfile 503", "http-request set-path", "stats enable"] {
        assert!(left(&imported, what), "{what}: {:#?}", imported.left_out);
    }
    assert!(config.services.iter().any(|service| *service.name == *"site"), "{}", imported.text);
}

#[test]
fn a_traefik_becomes_the_same_routes() {
    let sources = [source("traefik.yml", TRAEFIK[0]), source("dynamic.yml", TRAEFIK[1])];
    let (imported, config) = settled(traefik::import(&sources).unwrap());
    holds(
        &imported.text,
        &[
            "[entrypoint.web]\nbind = [\"0.0.0.0:80\"]\nredirect = \"https\"\nredirect_status = 308",
            "# tls = { acme = [\"shop.example.com\"], certificates = [\"/etc/traefik/certs/api.crt\"] }",
            "health = { every = \"10s\", path = \"/ping\", timeout = \"3s\" }",
            "sticky = { name = \"lb\", secure = true }",
            "split = { api = 9, api-next = 1 }",
            "tls = { insecure = true, server_name = \"api.internal\" }",
            "[middleware.office-only]",
            "middleware = [\"office-only\", \"admin-auth\"]",
            "Strict-Transport-Security",
            "path = \"/v1\"",
            "path = \"/v2\"",
            "not = { method = [\"TRACE\"] }",
            "priority = 50",
        ],
    );
    // Nothing says where its entrypoint listens, nor which servers it has.
    for what in ["tcp router db", "router dashboard"] {
        assert!(left(&imported, what), "{what}: {:#?}", imported.left_out);
    }
    assert_eq!(config.routes.len(), 5, "{}", imported.text);
}

#[test]
fn a_haproxy_of_tcp_becomes_passthrough_by_name_and_port() {
    let text = include_str!("../../../tests/fixtures/import/haproxy-tcp.cfg");
    let (imported, config) = settled(haproxy::import(&[source("haproxy.cfg", text)]).unwrap());
    holds(
        &imported.text,
        &[
            "[entrypoint.tls]\nbind = [\"0.0.0.0:443\", \"[::]:443\"]\nprotocol = \"tcp\"\n",
            "sni = [\"shop.example.com\", \"www.shop.example.com\"]\npassthrough = \"shop\"",
            "sni = [\"*.new.example.com\", \"beta.example.com\"]\npassthrough = \"platform_new\"",
            "entrypoint = \"tls\"\npassthrough = \"platform_old\"",
            "allow = [\"postgres-clients\"]",
            "prefixes = [\"10.0.0.0/8\", \"192.168.0.0/16\"]",
            "send_proxy = \"v2\"",
            "health = { every = \"3s\", fall = 3, rise = 2, tcp = true }",
            "timeouts = { connect = \"5s\", idle = \"10m\" }",
            "hash_by = \"client\"",
            "{ address = \"10.0.3.12:5432\", tier = 2 }",
        ],
    );
    assert!(left(&imported, "reject if"), "{:#?}", imported.left_out);
    let held: Vec<_> = imported.held_back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(held, ["smtp"], "a rule that keeps somebody out, and only it, holds back: {}", imported.text);
    assert_eq!(config.carried.len(), 5, "{}", imported.text);
}

#[test]
fn an_nginx_of_streams_becomes_passthrough_by_name_and_port() {
    let text = include_str!("../../../tests/fixtures/import/nginx-stream.conf");
    let (imported, config) = settled(nginx::import(&[source("nginx.conf", text)]).unwrap());
    holds(
        &imported.text,
        &[
            "[entrypoint.tcp-6443]\nbind = [\"0.0.0.0:6443\"]\nprotocol = \"tcp\"\nallow = [\"tcp-6443-clients\"]\n",
            "[entrypoint.tcp-443]\nbind = [\"0.0.0.0:443\", \"[::]:443\"]\nprotocol = \"tcp\"\n",
            "bind = [\"0.0.0.0:53\"]\nprotocol = \"udp\"\n",
            "sni = [\"shop.example.com\"]\npassthrough = \"shop\"",
            "sni = [\"legacy.example.com\", \"*.legacy.example.com\"]\npassthrough = \"legacy\"",
            "entrypoint = \"tcp-443\"\npassthrough = \"legacy\"",
            "send_proxy = \"v1\"",
            "timeouts = { connect = \"1s\", idle = \"10m\" }",
            "hash_by = \"client\"",
        ],
    );
    for what in ["~^beta-", "listen 993 ssl"] {
        assert!(left(&imported, what), "{what}: {:#?}", imported.left_out);
    }
    assert!(imported.held_back.is_empty(), "{}", imported.text);
    assert_eq!(config.carried.len(), 5, "{}", imported.text);
}

#[test]
fn traefiks_routers_of_tcp_and_udp_become_passthrough() {
    let text = include_str!("../../../tests/fixtures/import/traefik-tcp.yml");
    let (imported, config) = settled(traefik::import(&[source("traefik.yml", text)]).unwrap());
    holds(
        &imported.text,
        &[
            "[entrypoint.postgres]\nbind = [\"0.0.0.0:5432\"]\nprotocol = \"tcp\"\n",
            "bind = [\"0.0.0.0:53\"]\nprotocol = \"udp\"\n",
            "# entrypoint = [\"websecure\"]\n# sni = [\"legacy.example.com\", \"*.legacy.example.com\"]\n# passthrough = \"move\"",
            "split = { new = 1, old = 9 }",
            "send_proxy = \"v2\"",
        ],
    );
    assert!(left(&imported, "tcp router mqtt"), "{:#?}", imported.left_out);
    // The entrypoint of HTTPS has no certificate here, and a name that passes through it can't be told without TLS.
    let held: Vec<_> = imported.held_back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(held, ["websecure"], "{}", imported.text);
    assert_eq!((config.carried.len(), config.routes.len()), (2, 1), "{}", imported.text);
}

#[test]
fn a_guard_that_is_not_understood_opens_nothing() {
    for (from, text) in [
        (
            "nginx",
            "server { listen 80; location /admin { auth_request /auth; proxy_pass http://10.0.0.1; } }",
        ),
        (
            "nginx",
            "server { listen 80; location / { proxy_pass http://10.0.0.1; } location /x { if ($arg_a) { return 403; } proxy_pass http://10.0.0.1; } }",
        ),
        (
            "nginx",
            "server { listen 80; location /x { deny all; root /srv; } location / { proxy_pass http://10.0.0.1; } }",
        ),
        (
            "haproxy",
            "frontend a\n mode http\n bind :80\n http-request deny if { path_beg /admin }\n default_backend b\nbackend b\n mode http\n server s 10.0.0.1:80\n",
        ),
        (
            "traefik",
            "http:\n  routers:\n    a: { rule: 'Path(`/`)', entryPoints: [web], service: s, middlewares: [gone] }\n  services:\n    s: { loadBalancer: { servers: [{ url: 'http://10.0.0.1' }] } }\n",
        ),
    ] {
        let source = [source("x", text)];
        let draft = match from {
            "nginx" => nginx::import(&source),
            "haproxy" => haproxy::import(&source),
            _ => traefik::import(&source),
        };
        let (imported, config) = settled(draft.unwrap());
        assert!(!imported.held_back.is_empty(), "{}", imported.text);
        let open = config
            .entrypoints
            .iter()
            .flat_map(|entrypoint| &entrypoint.bind)
            .any(|bind| !bind.ip().is_loopback());
        assert!(!open, "{}", imported.text);
    }
}

/// Lines of the fixtures, in any order, some of them cut: much of it parses.
fn shuffled(text: &'static str) -> impl Strategy<Value = String> {
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    proptest::collection::vec((0..count, 0..200_usize), 1..60).prop_map(move |picks| {
        let mut text = String::new();
        for (nth, cut) in picks {
            let line: String = lines[nth].chars().take(cut.max(1)).collect();
            text.push_str(&line);
            text.push('\n');
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_comes_in_what_goes_out_is_valid(
        nginx_text in shuffled(NGINX),
        haproxy_text in shuffled(HAPROXY),
        traefik_text in shuffled(TRAEFIK[1]),
        stream_text in shuffled(include_str!("../../../tests/fixtures/import/nginx-stream.conf")),
        tcp_text in shuffled(include_str!("../../../tests/fixtures/import/haproxy-tcp.cfg")),
    ) {
        // A text that isn't of the language is a fault, which is as good; that the rest is valid, `settled` asserts.
        let wrapped = format!("http {{ server {{ listen 80; server_name a.example;\n{nginx_text}\n}} }}");
        for text in [nginx_text, wrapped] {
            if let Ok(draft) = nginx::import(&[source("x", &text)]) {
                settled(draft);
            }
        }
        if let Ok(draft) = nginx::import(&[source("x", &format!("stream {{ server {{ listen 80; proxy_pass s;\n{stream_text}\n}} }}"))]) {
            settled(draft);
        }
        if let Ok(draft) = haproxy::import(&[source("x", &format!("frontend x\n mode tcp\n bind :80\n{tcp_text}"))]) {
            settled(draft);
        }
        for text in [haproxy_text.clone(), format!("frontend x\n mode http\n bind :80\n{haproxy_text}")] {
            if let Ok(draft) = haproxy::import(&[source("x", &text)]) {
                settled(draft);
            }
        }
        if let Ok(draft) = traefik::import(&[source("x", &traefik_text)]) {
            settled(draft);
        }
    }
}
