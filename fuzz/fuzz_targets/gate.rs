//! Any bytes at all: the gate reads none outside of the frame, and comes to the same verdict as the model.
#![no_main]

use libfuzzer_sys::fuzz_target;
// What the model finds at the same places in `proxy-ebpf`.
use proxy_ebpf::{frame, gate};

#[path = "../../proxy-ebpf/src/gate/tests/model.rs"]
#[allow(dead_code, reason = "the property tests use more of it")]
mod model;

fuzz_target!(|frame: &[u8]| {
    // The first byte says whether this is a rehearsal.
    let Some((choice, frame)) = frame.split_first() else { return };
    if let Some(said) = model::disagreement(frame, choice & 1 != 0) {
        panic!("{said}");
    }
});
