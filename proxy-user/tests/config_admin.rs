//! `[admin]`: who gets in where, and what is refused because anybody would.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use proxy_user::config::{self, Diagnostic, Loaded, Report};
use tempfile::TempDir;

const SOUND: &str = "
[entrypoint.web]
bind = '127.0.0.1:8080'
[service.app]
servers = '10.0.0.1:80'
[[route]]
service = 'app'
";

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// With a token, a pair and an authority beside it.
fn load(admin: &str) -> Result<Loaded, Report> {
    let folder = TempDir::new().unwrap();
    let pair = rcgen::generate_simple_self_signed(["edge.example".to_owned()]).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("token", &format!("{TOKEN}\n"));
    write("short", "0123456789abcdef");
    write("spaces", &format!("{TOKEN} {TOKEN}"));
    write("admin.pem", &(pair.cert.pem() + &pair.signing_key.serialize_pem()));
    write("ca.pem", &pair.cert.pem());
    let file = folder.path().join("weir.toml");
    fs::write(&file, format!("[admin]\n{admin}\n{SOUND}")).unwrap();
    config::load(&file)
}

/// The lines of what is found, without the folder.
fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |diagnostic: &Diagnostic| {
        let line = diagnostic.line();
        let (severity, place) = line.split_once(": ").unwrap();
        let (file, rest) = place.split_once("weir.toml").unwrap();
        format!("{severity}: weir.toml{}", rest.replace(file, ""))
    };
    diagnostics.iter().map(line).collect()
}

fn faults(admin: &str) -> Vec<String> {
    load(admin).map_or_else(|report| lines(&report.diagnostics), |_| Vec::new())
}

fn warnings(admin: &str) -> Vec<String> {
    lines(&load(admin).unwrap_or_else(|report| panic!("{report}")).warnings)
}

#[test]
fn an_address_that_others_can_reach_asks_who_they_are() {
    for (address, column) in [("0.0.0.0:9190", 8), ("192.0.2.1:9190", 8), ("[::]:9190", 8)] {
        assert_eq!(
            faults(&format!("bind = '{address}'")),
            [format!(
                "error[W016]: weir.toml:2:{column}: admin.bind: `{address}` can be reached from other hosts, and nobody is \
                 asked who they are"
            )]
        );
    }
    assert_eq!(
        faults("bind = '0.0.0.0:9190'\ntls = { certificates = 'admin.pem' }").len(),
        1,
        "TLS alone asks nobody"
    );
    for admin in [
        "bind = ['127.0.0.1:9190', '[::1]:9190', 'unix:/run/weir/admin.sock']",
        "bind = '0.0.0.0:9190'\ntoken_file = 'token'\ntls = { certificates = 'admin.pem' }",
        "bind = '0.0.0.0:9190'\ntls = { certificates = 'admin.pem', client_ca = 'ca.pem' }",
        "token_file = 'token'",
    ] {
        assert_eq!(warnings(admin), [""; 0], "{admin}");
    }
}

#[test]
fn a_token_without_tls_is_warned_of() {
    assert_eq!(
        warnings("bind = '0.0.0.0:9190'\ntoken_file = 'token'"),
        [
            "warning[W044]: weir.toml:2:8: the admin interface at `0.0.0.0:9190` can be reached from other hosts, without TLS"
        ]
    );
}

#[test]
fn a_token_that_is_none_is_refused_once() {
    for (file, message) in [
        ("short", "admin.token_file: `short` holds only 16 bytes"),
        ("spaces", "admin.token_file: `spaces` holds more than printable characters"),
        ("gone", "admin.token_file: `gone` can't be read: No such file or directory (os error 2)"),
    ] {
        let found = faults(&format!("bind = '127.0.0.1:9190'\ntoken_file = '{file}'"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("error[W0") && found[0].contains("weir.toml:3:14"), "{found:?}");
        assert!(found[0].contains(message), "{found:?} says nothing of: {message}");
    }
}

#[test]
fn faults_of_its_tls_are_told_with_their_place() {
    for (tls, place, message) in [
        ("{ client_ca = 'ca.pem' }", "3:7", "admin.tls has no `certificates`"),
        ("{ certificates = 'gone.pem' }", "3:24", "admin.tls: "),
        ("{ certificates = 'admin.pem', client_ca = 'token' }", "3:49", "admin.tls: "),
    ] {
        let found = faults(&format!("token_file = 'token'\ntls = {tls}"));
        assert_eq!(found.len(), 1, "{tls}: {found:?}");
        assert!(found[0].contains(&format!("weir.toml:{place}: {message}")), "{tls}: {found:?}");
    }
}

#[test]
fn neither_the_token_nor_a_trace_of_it_is_shown() {
    let loaded = load("token_file = 'token'").unwrap_or_else(|report| panic!("{report}"));
    assert!(!format!("{:?}", loaded.config.admin).contains(TOKEN));
    let admin = config::effective::sections(&loaded.config);
    let admin = admin.iter().find(|section| section.section == "admin").unwrap();
    assert_eq!(admin.keys["token_file"], "a secret");
    let other = load("").unwrap_or_else(|report| panic!("{report}")).config;
    let changes = config::diff::of(&other, &loaded.config);
    assert_eq!(changes[0].keys[0].key, "token_file");
}
