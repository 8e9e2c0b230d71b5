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
