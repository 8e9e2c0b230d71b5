//! Whatever a file holds: an answer, never a panic, and an answer that can be shown.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use proptest::{
    prelude::{Just, ProptestConfig, Strategy, prop_oneof},
    proptest,
};
use proxy_user::config;

const SEED: &str = r#"# Every kind of section and value.
[kernel]
interfaces = ["eth0", 'eth1']
mode = "auto"
[admin]
bind = "unix:/run/weir/admin.sock"
[log]
access = "off"
[shutdown]
grace = "30s"
[allowlist.office]
prefixes = ["10.0.0.0/8", "2001:db8::/32"]
[entrypoint."web"]
bind = [
  "0.0.0.0:80",   # everywhere
  "[::]:80",
]
allow = ["office", "cloudflare"]
client_ip = { header = "CF-Connecting-IP", trust = ["cloudflare"] }
[service.app]
servers = ["10.0.0.1:80", "10.0.0.2:80"]
health = { path = "/päng", every = "1s", timeout = "250ms", fall = 2, rise = 0x2 }
timeouts.connect = "1s"
when_all_down = "page:maintenance"
[page.maintenance]
retry_after = """30s"""
[[route]]
host = "*.example.com"
path = "/a"
service = "app"
[[route]]
entrypoints = "web"
service = "app"
"#;

/// What an edit puts in.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\"'=.,#\n\r\t 0-9a-z_-]{0,6}",
        "\\PC{0,4}",
        prop_oneof![
            Just("[[route]]\n"),
            Just("[service.app]\n"),
            Just("\"\"\""),
            Just("'''"),
            Just("= 1979-05-27T07:32:00Z\n"),
            Just("_1 = 1\n[_1]\n"),
            Just("\u{feff}"),
            Just("\0"),
            Just("{ a = { b = [[[ 1 ]]] } }"),
        ]
        .prop_map(str::to_owned),
    ]
}

fn check(text: &str) {
    let report = match config::load_text(Path::new("weir.toml"), text) {
        Ok(loaded) => loaded.report().clone(),
        Err(report) => {
            assert!(report.errors() > 0, "refused without a reason: {text}");
            report
        }
    };
    for colour in [false, true] {
        assert_eq!(report.render(colour).is_empty(), report.diagnostics.is_empty());
    }
    assert_eq!(
        report.lines().lines().count(),
        2 * report.diagnostics.len(),
        "one line each: {}",
        report.lines()
    );
    assert!(serde_json::to_string(&report).is_ok());
}

#[test]
fn the_seed_is_sound() {
    let loaded = config::load_text(Path::new("weir.toml"), &SEED.replace("päng", "ping"));
    // Its two routes are told apart by host, its health path by its one wrong letter.
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn a_file_cut_off_anywhere_gets_an_answer() {
    for (at, _) in SEED.char_indices() {
        check(&SEED[..at]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_file_gets_an_answer(edits in proptest::collection::vec((0.0..1.0, 0usize..30, piece()), 1..6)) {
        let mut text = SEED.to_owned();
        for (place, length, piece) in edits {
            let floor = |at: usize, text: &str| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any place will do")]
            let start = floor((place * text.len() as f64) as usize, &text);
            let end = floor(start + length, &text).max(start);
            text.replace_range(start..end, &piece);
        }
        check(&text);
    }

    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,200}") {
        check(&text);
    }
}
