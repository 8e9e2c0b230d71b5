//! The bytes of a frame, whichever hook we run in.

use aya_ebpf::programs::{TcContext, XdpContext};

/// A frame whose bytes from `start` to `end` can be read where they lie.
///
/// # Safety
/// Every byte from `start()` up to but not including `end()` is readable for as long as the frame is
/// borrowed, and `start() <= end()`.
pub unsafe trait Frame {
    fn start(&self) -> usize;
    fn end(&self) -> usize;
}

/// Types that any bytes at any address are a valid value of.
///
/// # Safety
/// The type has alignment 1, no padding and no invalid bit patterns.
pub unsafe trait Wire {}

// SAFETY: a byte.
unsafe impl Wire for u8 {}
// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}

/// The frame ends before what was to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// The `T` that begins `offset` bytes into the frame.
#[inline(always)]
pub fn read<T: Wire>(frame: &impl Frame, offset: usize) -> Result<&T, TooShort> {
    let at = frame.start() + offset;
    if at + size_of::<T>() > frame.end() {
        return Err(TooShort);
    }
    // SAFETY: the check above keeps all of `T` inside the frame, whose bytes are readable while it is
    // borrowed (`Frame`), and any bytes at any address are a `T` (`Wire`).
    Ok(unsafe { &*(at as *const T) })
}

/// An address on the wire, as 32-bit words that hold its bytes in their order. Read whole: byte by byte, an
/// address costs more than the lookup that it is for.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Words<const N: usize>([[u8; 4]; N]);

// SAFETY: bytes.
unsafe impl<const N: usize> Wire for Words<N> {}

impl<const N: usize> Words<N> {
    #[inline(always)]
    pub fn read(&self) -> [u32; N] {
        let mut words = [0; N];
        let mut at = 0;
        while at < N {
            words[at] = word(&self.0[at]);
            at += 1;
        }
        words
    }
}

/// Four bytes, in the order in which they lie.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*bytes)
}

/// Four bytes, in the order in which they lie.
///
/// The compiler takes BPF for a machine that can't load a word from any address, and would put it together
/// from bytes. Whether it can is the verifier's to know: it refuses the program where it can't.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn word(bytes: &[u8; 4]) -> u32 {
    // SAFETY: the four bytes are readable. Their address may not be a multiple of four, which matters to no
    // BPF instruction but only to the machine below; for that the verifier answers. Volatile, so that the
    // compiler chooses one load and concludes nothing from the address.
    unsafe { core::ptr::read_volatile(bytes.as_ptr().cast()) }
}

// SAFETY: `data` and `data_end` bound the packet, and the verifier refuses a program that reads outside them.
unsafe impl Frame for XdpContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }
}

// SAFETY: as for XDP; here they bound what of the packet lies in one piece, which may end before the packet.
unsafe impl Frame for TcContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }
}
