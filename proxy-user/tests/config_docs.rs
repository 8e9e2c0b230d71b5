//! What is generated from the code must be what is checked in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use proxy_user::config;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn the_schema_is_what_the_code_generates() {
    let checked_in = std::fs::read_to_string(docs().join("weir.schema.json")).unwrap_or_default();
    assert!(checked_in == config::schema(), "docs/weir.schema.json is stale: run `cargo xtask docs`");
}

#[test]
fn the_reference_is_what_the_code_generates() {
    let page = std::fs::read_to_string(docs().join("configuration.md")).unwrap();
    assert!(page == config::with_reference(&page), "docs/configuration.md is stale: run `cargo xtask docs`");
}

#[test]
fn docs_are_written_below_the_guide() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("configuration.md"), "# Guide\n").unwrap();
    config::write_docs(folder.path()).unwrap();
    let page = std::fs::read_to_string(folder.path().join("configuration.md")).unwrap();
    assert!(page.starts_with("# Guide\n\n<!-- Generated"));
    assert!(page.contains("### `[kernel]`") && page.contains("### W012: no such service"));
    assert_eq!(page, config::with_reference(&page), "writing twice changes nothing");
    assert!(folder.path().join("weir.schema.json").exists());
}

/// The complete files that the guide shows must work as they stand there, but for their certificates.
#[test]
fn the_guides_example_is_valid() {
    let page = std::fs::read_to_string(docs().join("configuration.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let report = config::load_text(Path::new("/nowhere/weir.toml"), example).unwrap_err();
    let codes: Vec<_> = report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, [config::Code::BadCertificate], "{report}");
}
