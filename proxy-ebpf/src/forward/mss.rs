//! The longest segment that a SYN asks for.
//!
//! Whoever sends by way of us has to know how much the way carries; errors that say so get lost too often. So a SYN that
//! asks for more than both interfaces carry is made to ask for less, as routers do that join networks.

use crate::verifier::forgotten;

/// As many bytes of options as there can be, rounded up so that an index into them can be cut off.
pub const ROOM: usize = 64;
/// As many as there can be.
pub const LONGEST: usize = 40;
/// Each of them is looked at no more often than this.
const OPTIONS: usize = 16;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// The option's value, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the beginning of the options.
    pub at: usize,
    pub value: u16,
}

/// Looks for the option among `length` bytes.
#[inline(always)]
pub fn find(options: &[u8; ROOM], length: usize) -> Option<Found> {
    const MASK: usize = ROOM - 1;
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
        if kind == MSS && size == 4 {
            let value = u16::from_be_bytes([options[(at + 2) & MASK], options[(at + 3) & MASK]]);
            return Some(Found { at: at + 2, value });
        }
        if size < 2 || usize::from(size) > LONGEST {
            return None;
        }
        at += usize::from(size);
    }
    None
}

/// How much an interface carries of a segment.
#[inline(always)]
#[must_use]
pub const fn carried(mtu: u32, is_v6: bool) -> u16 {
    let headers = if is_v6 { 60 } else { 40 };
    let carried = mtu.saturating_sub(headers);
    if carried > u16::MAX as u32 { u16::MAX } else { carried as u16 }
}

/// What one number that becomes another adds to a sum, when it begins at such an offset. In a header's sum, a number at an
/// odd one is split between two words.
#[inline(always)]
#[must_use]
pub fn change(at: usize, from: u16, to: u16) -> (u32, u32) {
    let lie = |number: u16| {
        let [high, low] = number.to_be_bytes();
        if at.is_multiple_of(2) {
            u32::from_ne_bytes([high, low, 0, 0])
        } else {
            u32::from_ne_bytes([0, high, low, 0])
        }
    };
    (lie(from), lie(to))
}

#[cfg(test)]
mod tests;
