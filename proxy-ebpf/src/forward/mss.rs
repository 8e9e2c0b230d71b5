//! The longest segment that a SYN asks for.
//!
//! Whoever sends by way of us has to know how much the way carries; errors that say so get lost too often. So a SYN that
//! asks for more than both interfaces carry is made to ask for less, as routers do that join networks.

use super::options;

const KIND: u8 = 2;
const SIZE: u8 = 4;

/// The option's value, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the beginning of the options.
    pub at: usize,
    pub value: u16,
}

/// Looks for the option among `length` bytes.
#[inline(always)]
pub fn find(options: &[u8; options::ROOM], length: usize) -> Option<Found> {
    let at = options::find(options, length, KIND, SIZE)?;
    Some(Found { at, value: u16::from_be_bytes(options::value(options, at)) })
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
