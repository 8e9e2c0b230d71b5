//! Any text at all as another proxy's configuration: nothing panics, and whatever is read becomes a configuration that
//! Weir takes. The first byte chooses whose it is. No file is included, and none is read but certificates that a text names.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use proxy_user::{
    config,
    import::{haproxy, nginx, settle, traefik},
};

fuzz_target!(|bytes: &[u8]| {
    let Some((whose, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let draft = match whose % 3 {
        0 => nginx::parse_text("x", text).ok().map(|parsed| nginx::convert(&parsed)),
        1 => haproxy::parse_text("x", text).ok().map(|parsed| haproxy::convert(&parsed)),
        _ => traefik::tree::yaml("x", text).ok().map(|parsed| traefik::convert(&parsed)),
    };
    let Some(draft) = draft else { return };
    let imported = settle(draft, Path::new("weir.toml"));
    if let Err(report) = config::load_text(Path::new("weir.toml"), &imported.text) {
        panic!("{}\n{}", report.lines(), imported.text);
    }
});
