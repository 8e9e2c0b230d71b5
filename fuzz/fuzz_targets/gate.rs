//! Any bytes at all: the gate reads none outside of the frame, and comes to the same verdict as the model.
#![no_main]

use libfuzzer_sys::fuzz_target;
// What the model finds at the same places in `proxy-ebpf`.
use proxy_ebpf::{frame, gate};

#[path = "../../proxy-ebpf/src/gate/tests/model.rs"]
#[allow(dead_code, reason = "the property tests use more of it")]
mod model;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, frame)) = bytes.split_first() else { return };
    let mut frame = frame.to_vec();
    if choice & 2 != 0 {
        address(&mut frame, usize::from(choice >> 2));
    }
    if let Some(said) = model::disagreement(&frame, setting(*choice, bytes.len())) {
        panic!("{said}");
    }
});

/// Any of what an entrypoint may have beside its lists.
fn setting(choice: u8, more: usize) -> model::Setting {
    let protect = (more % 32) as u8;
    model::Setting {
        shadow: choice & 1 != 0,
        protect,
        // Where nobody has to be listed there are no lists.
        cdn: [None, Some(0), Some(1)][usize::from(choice >> 1) % 3].filter(|_| protect & 1 == 0),
        blocked: [model::Blocked::Nobody, model::Blocked::NoCdn, model::Blocked::Everybody]
            [usize::from(choice >> 3) % 3],
        over: [choice & 64 != 0, choice & 128 != 0],
    }
}

/// Most of what is tried would be for nobody, so half of it is sent to a guarded address.
fn address(frame: &mut [u8], from: usize) {
    let from = from % model::SOURCES_V4.len();
    let source_and_destination: &[u8] = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, ..] => {
            &[model::SOURCES_V4[from].octets(), model::EDGE_V4.octets()].concat()
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] => {
            &[model::SOURCES_V6[from].octets(), model::EDGE_V6.octets()].concat()
        }
        _ => return,
    };
    let at = if source_and_destination.len() == 8 { 14 + 12 } else { 14 + 8 };
    if let Some(place) = frame.get_mut(at..at + source_and_destination.len()) {
        place.copy_from_slice(source_and_destination);
    }
}
