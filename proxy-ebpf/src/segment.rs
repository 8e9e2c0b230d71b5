//! A TCP header that goes from one connection into another: what of it is shifted, and by how much.
//!
//! Both connections are the edge's, and joined in the middle: what a client sends to the edge goes on to a server as if the
//! edge had sent it. Each has numbers of its own for everything, so each number is shifted by the difference.

use crate::{headers::Tcp, sum::Sum};

/// The longest that a TCP header is, in bytes, and the shortest.
pub const LONGEST: u32 = 60;
pub const SHORTEST: u32 = 20;

/// Options of a header: no more than so many are looked at. Senders in use have at most six, padding included.
const MOST_OPTIONS: u32 = 20;

mod option {
    pub const END: u8 = 0;
    pub const NOTHING: u8 = 1;
    pub const LONGEST: u8 = 2;
    pub const SELECTIVE: u8 = 5;
    pub const TIME: u8 = 8;
    pub const TIME_LENGTH: u32 = 10;
    /// Nothing, nothing, and a timestamp: what nearly all headers have.
    pub const TIME_ALONE: u32 = u32::from_be_bytes([NOTHING, NOTHING, TIME, TIME_LENGTH as u8]);
}

/// Room for a header, and behind it: what is read at an offset below 64 stays inside, whatever the header says.
#[repr(C, align(8))]
#[derive(Clone)]
pub struct Header {
    bytes: [u8; Self::ROOM],
    /// Where the walk through the options is. What is kept here the verifier forgets: it would follow each way through
    /// them separately, and each of those each way on from there.
    at: u64,
}

/// By how much a direction's numbers are shifted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shift {
    /// As they stand in the header.
    pub ports: u32,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub time: u32,
    pub echo: u32,
    pub scale_from: u8,
    pub scale_to: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// What has changed, for the checksum.
    pub difference: u32,
    /// It had selective acknowledgements.
    pub selective: bool,
}

/// Its options don't fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Shifts a header that is so many bytes long. Its checksum stays what it was.
#[inline(always)]
pub fn shift(header: &mut Header, length: u32, by: &Shift) -> Result<Shifted, Unreadable> {
    let before = header.words(Sum::none(), Sum::without);
    let mut selective = false;

    // 1. What every header has.
    let flags = header.flags();
    header.put_raw(0, by.ports);
    header.add(4, by.sequence);
    if flags & Tcp::ACK != 0 {
        header.add(8, by.acknowledgement);
    }
    // A SYN's window is never scaled.
    if flags & Tcp::SYN == 0 {
        let window = (header.half(14) << (by.scale_from & 15)) >> (by.scale_to & 15);
        header.put_half(14, if window > 0xffff { 0xffff } else { window });
    }

    // 2. Options.
    if length == SHORTEST + 12 && header.word(20) == option::TIME_ALONE {
        header.shift_time(22, by);
    } else {
        header.options(length, |header, kind, at, length| match kind {
            option::TIME if length == option::TIME_LENGTH => header.shift_time(at, by),
            option::SELECTIVE => {
                selective = true;
                header.shift_blocks(at, length, by.acknowledgement);
            }
            _ => {}
        })?;
    }
    let sum = header.words(before, Sum::with);
    Ok(Shifted { difference: sum.difference(), selective })
}

/// What a SYN says of who sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    pub time: Option<u32>,
    /// The longest segment that it takes.
    pub longest: u32,
}

/// What stands in the options of a header that is so many bytes long.
#[inline(always)]
pub fn opening(header: &mut Header, length: u32) -> Result<Opening, Unreadable> {
    let mut opening = Opening::default();
    header.options(length, |header, kind, at, length| match kind {
        option::TIME if length == option::TIME_LENGTH => opening.time = Some(header.word(at + 2)),
        option::LONGEST if length == 4 => opening.longest = header.half(at + 2),
        _ => {}
    })?;
    Ok(opening)
}

// === impl Header ===

impl Header {
    const ROOM: usize = 120;

    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: [0; Self::ROOM], at: 0 }
    }

    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.word(4)
    }

    #[inline(always)]
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        self.word(8)
    }

    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.byte(13)
    }

    /// Calls `visit` with each option's kind, place and length.
    #[inline(always)]
    fn options(
        &mut self,
        length: u32,
        mut visit: impl FnMut(&mut Self, u8, u32, u32),
    ) -> Result<(), Unreadable> {
        self.go_to(SHORTEST);
        for _ in 0..MOST_OPTIONS {
            let at = self.place();
            if at >= length || at >= LONGEST {
                return Ok(());
            }
            match self.byte(at) {
                option::END => return Ok(()),
                option::NOTHING => self.go_to(at + 1),
                kind => {
                    let option = u32::from(self.byte(at + 1));
                    if option < 2 || at + option > length {
                        return Err(Unreadable);
                    }
                    visit(self, kind, at, option);
                    self.go_to(at + option);
                }
            }
        }
        if self.place() < length { Err(Unreadable) } else { Ok(()) }
    }

    #[inline(always)]
    fn go_to(&mut self, at: u32) {
        // SAFETY: a field of ours. Volatile, so that it is really written, and read again.
        unsafe { core::ptr::write_volatile(&raw mut self.at, at.into()) }
    }

    #[inline(always)]
    fn place(&self) -> u32 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const self.at) as u32 }
    }

    #[inline(always)]
    fn shift_time(&mut self, at: u32, by: &Shift) {
        self.add(at + 2, by.time);
        // Nothing is echoed before there was anything.
        if self.word(at + 6) != 0 {
            self.add(at + 6, by.echo);
        }
    }

    /// Both ends of up to four blocks.
    #[inline(always)]
    fn shift_blocks(&mut self, at: u32, length: u32, by: u32) {
        for block in 0..4 {
            if length >= 10 + block * 8 {
                self.add(at + 2 + block * 8, by);
                self.add(at + 6 + block * 8, by);
            }
        }
    }

    /// All words of the longest header. Those behind the end of a shorter one are the same before and after.
    #[inline(always)]
    fn words(&self, mut sum: Sum, take: impl Fn(Sum, u32) -> Sum) -> Sum {
        let mut at = 0;
        while at < LONGEST {
            sum = take(sum, self.raw(at));
            at += 4;
        }
        sum
    }

    #[inline(always)]
    fn add(&mut self, at: u32, more: u32) {
        self.put_raw(at, self.word(at).wrapping_add(more).to_be());
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        u32::from_be(self.raw(at))
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        self.bytes[inside(at)]
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u32 {
        u32::from(self.byte(at)) << 8 | u32::from(self.byte(at + 1))
    }

    #[inline(always)]
    fn put_half(&mut self, at: u32, value: u32) {
        self.bytes[inside(at)] = (value >> 8) as u8;
        self.bytes[inside(at + 1)] = value as u8;
    }
}

/// A word at any place, as it lies. BPF's machine loads and stores words at any address of a map's value; the compiler doesn't
/// know, and would go byte by byte.
#[cfg(target_arch = "bpf")]
impl Header {
    #[inline(always)]
    fn raw(&self, at: u32) -> u32 {
        // SAFETY: at most 116, inside of the room; see above for the alignment. Volatile, so that it is one load.
        unsafe { core::ptr::read_volatile(self.bytes.as_ptr().add(inside(at)).cast()) }
    }

    #[inline(always)]
    fn put_raw(&mut self, at: u32, word: u32) {
        // SAFETY: as for reading.
        unsafe { core::ptr::write_volatile(self.bytes.as_mut_ptr().add(inside(at)).cast(), word) }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Header {
    fn raw(&self, at: u32) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[inside(at)..inside(at) + 4]);
        u32::from_ne_bytes(word)
    }

    fn put_raw(&mut self, at: u32, word: u32) {
        self.bytes[inside(at)..inside(at) + 4].copy_from_slice(&word.to_ne_bytes());
    }
}

/// Offsets are at most those of the last byte of an option that begins below 64 and has four blocks.
#[inline(always)]
fn inside(at: u32) -> usize {
    const FURTHEST: usize = 116;
    let at = at as usize;
    if at < FURTHEST { at } else { FURTHEST }
}

#[cfg(test)]
mod tests;
