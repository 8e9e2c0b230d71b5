//! Any text at all as a configuration: it is taken, or refused at a place that is in it; nothing panics.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use proxy_user::config;

fuzz_target!(|text: &str| {
    if let Err(report) = config::load_text(Path::new("weir.toml"), text) {
        assert!(!report.lines().to_string().is_empty());
    }
});
