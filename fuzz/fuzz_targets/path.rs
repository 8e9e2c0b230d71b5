//! Any path at all: what is routed begins with a slash, has no empty segments, and climbs nowhere, however a server may
//! separate its segments.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use proxy_user::hygiene::target::routed;

fuzz_target!(|path: &str| {
    if !path.starts_with('/') {
        return;
    }
    let Ok(plain) = routed(&Method::GET, path) else { return };
    assert!(plain.starts_with('/') && !plain.contains("//"), "{path:?} → {plain:?}");
    assert!(plain.split(['/', '\\']).all(|segment| !matches!(segment, "." | "..")), "{path:?} → {plain:?}");
});
