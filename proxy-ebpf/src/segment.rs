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

/// What has changed at even places, and at odd ones.
#[derive(Clone, Copy, Default)]
struct Changes {
    even: Sum,
    odd: Sum,
}

/// Its options don't fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Shifts a header that is so many bytes long. Its checksum stays what it was.
#[inline(always)]
pub fn shift(header: &mut Header, length: u32, by: &Shift) -> Result<Shifted, Unreadable> {
    let mut changes = Changes::default();
    let mut selective = false;

    // 1. What every header has.
    let flags = header.flags();
    header.put(0, by.ports, &mut changes);
    header.add(4, by.sequence, &mut changes);
    if flags & Tcp::ACK != 0 {
        header.add(8, by.acknowledgement, &mut changes);
    }
    // A SYN's window is never scaled.
    if flags & Tcp::SYN == 0 {
        header.shift_window(by, &mut changes);
    }

    // 2. Options.
    if length == SHORTEST + 12 && header.word(20) == option::TIME_ALONE {
        header.shift_time(22, by, &mut changes);
    } else {
        header.options(length, |header, kind, at, length| match kind {
            option::TIME if length == option::TIME_LENGTH => header.shift_time(at, by, &mut changes),
            option::SELECTIVE => {
                selective = true;
                header.shift_blocks(at, length, by.acknowledgement, &mut changes);
            }
            _ => {}
        })?;
    }
    Ok(Shifted { difference: changes.difference(), selective })
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
    const ROOM: usize = 136;

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
    fn shift_window(&mut self, by: &Shift, changes: &mut Changes) {
        const AT: u32 = 14;
        let before = self.half(AT);
        let shifted = (before << (by.scale_from & 15)) >> (by.scale_to & 15);
        let window = if shifted > 0xffff { 0xffff } else { shifted };
        self.put_byte(AT, (window >> 8) as u8);
        self.put_byte(AT + 1, window as u8);
        let lie = |half: u32| u32::from((half as u16).to_be());
        changes.even = changes.even.without(lie(before)).with(lie(window));
    }

    #[inline(always)]
    fn shift_time(&mut self, at: u32, by: &Shift, changes: &mut Changes) {
        self.add(at + 2, by.time, changes);
        // Nothing is echoed before there was anything.
        if self.word(at + 6) != 0 {
            self.add(at + 6, by.echo, changes);
        }
    }

    /// Both ends of up to four blocks.
    #[inline(always)]
    fn shift_blocks(&mut self, at: u32, length: u32, by: u32, changes: &mut Changes) {
        for block in 0..4 {
            if length >= 10 + block * 8 {
                self.add(at + 2 + block * 8, by, changes);
                self.add(at + 6 + block * 8, by, changes);
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, at: u32, more: u32, changes: &mut Changes) {
        self.put(at, self.word(at).wrapping_add(more).to_be(), changes);
    }

    /// A word, as it is to lie there.
    #[inline(always)]
    fn put(&mut self, at: u32, word: u32, changes: &mut Changes) {
        let sum = if at & 1 == 0 { &mut changes.even } else { &mut changes.odd };
        *sum = sum.without(self.raw(at)).with(word);
        self.put_raw(at, word);
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        u32::from_be(self.raw(at))
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u32 {
        u32::from(self.byte(at)) << 8 | u32::from(self.byte(at + 1))
    }
}

// === impl Changes ===

impl Changes {
    #[inline(always)]
    fn difference(self) -> u32 {
        // One byte further in a sum of pairs of bytes.
        self.even.with(self.odd.difference().rotate_left(8)).difference()
    }
}

/// A word at any place, as it lies. BPF's machine loads and stores words at any address of a map's value; the compiler doesn't
/// know, and would go byte by byte.
#[cfg(target_arch = "bpf")]
impl Header {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        // SAFETY: at most 127, inside of the room.
        unsafe { *self.bytes.as_ptr().add(inside(at)) }
    }

    #[inline(always)]
    fn put_byte(&mut self, at: u32, byte: u8) {
        // SAFETY: as for reading.
        unsafe { *self.bytes.as_mut_ptr().add(inside(at)) = byte }
    }

    #[inline(always)]
    fn raw(&self, at: u32) -> u32 {
        // SAFETY: at most 127, inside of the room; see above for the alignment. Volatile, so that it is one load.
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
    fn byte(&self, at: u32) -> u8 {
        self.bytes[inside(at)]
    }

    fn put_byte(&mut self, at: u32, byte: u8) {
        self.bytes[inside(at)] = byte;
    }

    fn raw(&self, at: u32) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[inside(at)..inside(at) + 4]);
        u32::from_ne_bytes(word)
    }

    fn put_raw(&mut self, at: u32, word: u32) {
        self.bytes[inside(at)..inside(at) + 4].copy_from_slice(&word.to_ne_bytes());
    }
}

/// Offsets are at most those of the last byte of an option that begins below 64 and has four blocks, so this changes none. It
/// is what the verifier sees; written out, since the compiler knows too, and would leave it away.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn inside(at: u32) -> usize {
    let mut at = u64::from(at);
    // SAFETY: it touches nothing but the register.
    unsafe { core::arch::asm!("{at} &= 127", at = inout(reg) at, options(nomem, nostack, pure)) };
    at as usize
}

#[cfg(not(target_arch = "bpf"))]
fn inside(at: u32) -> usize {
    assert!(at < 128);
    at as usize
}

#[cfg(test)]
mod tests;
