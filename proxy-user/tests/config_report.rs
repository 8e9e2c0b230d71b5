//! How faults are shown: as lines, with the source, as data.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use proxy_user::config;

const BAD: &str = "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.shop-v1]\nservers = '10.0.0.1:80'\n\n[[route]]\nname = \"shop\"\nservice = \"shop-v2\"\n";

fn report() -> config::Report {
    config::load_text(Path::new("weir.toml"), BAD).unwrap_err()
}

#[test]
fn a_log_gets_a_line_and_a_hint() {
    assert_eq!(
        report().lines(),
        "error[W012]: weir.toml:8:11: route `shop` sends to service `shop-v2`, which does not exist\n  \
         hint: did you mean `shop-v1`? `weir explain W012` says more\n"
    );
    assert_eq!(report().to_string(), report().lines().trim_end());
}

#[test]
fn a_terminal_gets_the_source_and_a_caret() {
    let expected = r#"error[W012]: route `shop` sends to service `shop-v2`, which does not exist
 --> weir.toml:8:11
  |
8 | service = "shop-v2"
  |           ^^^^^^^^^
  |
  = hint: did you mean `shop-v1`? `weir explain W012` says more

"#;
    assert_eq!(report().render(false), expected);
}

#[test]
fn colour_comes_only_when_asked_for() {
    assert!(!report().render(false).contains('\u{1b}'));
    assert!(report().render(true).contains('\u{1b}'));
}

#[test]
fn the_other_place_is_shown_too() {
    let text = format!("{BAD}[entrypoint.more]\nbind = '0.0.0.0:80'").replace("shop-v2", "shop-v1");
    let report = config::load_text(Path::new("weir.toml"), &text).unwrap_err();
    let expected = "\
error[W018]: entrypoint `more` can't listen on `0.0.0.0:80`: entrypoint `web` listens on `127.0.0.1:80`
  --> weir.toml:10:8
   |
 2 | bind = '127.0.0.1:80'
   |        -------------- taken here
...
10 | bind = '0.0.0.0:80'
   |        ^^^^^^^^^^^^
   |
   = hint: one of them needs another port; `weir explain W018` says more

";
    assert_eq!(report.render(false), expected);
}

#[test]
fn machines_get_the_same_as_data() {
    let expected = serde_json::json!([{
        "code": "W012",
        "severity": "error",
        "file": "weir.toml",
        "line": 8,
        "column": 11,
        "message": "route `shop` sends to service `shop-v2`, which does not exist",
        "hint": "did you mean `shop-v1`?",
        "related": [],
    }]);
    assert_eq!(serde_json::to_value(report()).unwrap(), expected);
}

#[test]
fn text_from_a_file_cant_forge_lines_in_a_log() {
    let text = BAD.replace("shop-v2", "x\\nerror[W001]: weir.toml:1:1: forged\\u001b[2J");
    let report = config::load_text(Path::new("weir.toml"), &text).unwrap_err();
    assert_eq!(report.lines().lines().count(), 2);
    assert!(!report.lines().contains('\u{1b}'));
}
