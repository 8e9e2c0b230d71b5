//! The options of a TCP header, one after the other until the one that is looked for.

use crate::verifier::forgotten;

/// As many bytes of options as there can be, rounded up so that an index into them can be cut off.
pub const ROOM: usize = 64;
/// What cuts it off.
const MASK: usize = ROOM - 1;
/// As many as there can be.
pub const LONGEST: usize = 40;
/// Each of them is looked at no more often than this.
const OPTIONS: usize = 16;

const END: u8 = 0;
const NOTHING: u8 = 1;

/// A timestamp: when its sender sent it, and which one that answers.
const TIME: u8 = 8;
const TIME_SIZE: u8 = 10;

/// Looks for an option of a kind and size (at least 4) among `length` bytes. Where its value begins.
#[inline(always)]
pub fn find(options: &[u8; ROOM], length: usize, wanted: u8, wanted_size: u8) -> Option<usize> {
    let mut at = 0;
    for _ in 0..OPTIONS {
        at = usize::from(forgotten(at as u16)) & MASK;
        if at + 4 > length {
            return None;
        }
        let kind = options[at & MASK];
        if kind == END {
            return None;
        }
        if kind == NOTHING {
            at += 1;
            continue;
        }
        let size = options[(at + 1) & MASK];
        if kind == wanted && size == wanted_size {
            return (at + usize::from(size) <= length).then_some(at + 2);
        }
        if size < 2 || usize::from(size) > LONGEST {
            return None;
        }
        at += usize::from(size);
    }
    None
}

/// When the segment's sender says that it sent it. 0 where it says nothing, and for 0, which comes once in weeks and does no harm.
#[inline(always)]
#[must_use]
pub fn time(options: &[u8; ROOM], length: usize) -> u32 {
    match find(options, length, TIME, TIME_SIZE) {
        Some(at) => u32::from_be_bytes(value(options, at)),
        None => 0,
    }
}

/// The bytes from there on. That they are within the options is shown to the verifier of Linux 6.1 here: the compiler, which knows where
/// an option can be, would leave the bounds out.
#[inline(always)]
#[must_use]
pub fn value<const BYTES: usize>(options: &[u8; ROOM], at: usize) -> [u8; BYTES] {
    let at = usize::from(forgotten(at as u16));
    let mut value = [0; BYTES];
    let mut behind = 0;
    while behind < BYTES {
        value[behind] = options[(at + behind) & MASK];
        behind += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(options: &[u8]) -> [u8; ROOM] {
        let mut room = [0; ROOM];
        room[..options.len()].copy_from_slice(options);
        room
    }

    #[test]
    fn a_timestamp_is_found_wherever_it_is() {
        for (options, expected) in [
            (&[1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 9][..], 0x0102_0304),
            (&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0xff, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], 0xff00_0001),
            (&[8, 10, 0, 0, 0, 7, 0, 0, 0, 0], 7),
            (&[2, 4, 5, 0xb4], 0),
            (&[8, 9, 0, 0, 0, 7, 0, 0, 0, 0], 0),
            // It says that it goes on behind the header.
            (&[1, 1, 8, 10, 0, 0, 0, 7], 0),
            (&[], 0),
        ] {
            assert_eq!(time(&room(options), options.len()), expected, "{options:?}");
        }
    }
}
