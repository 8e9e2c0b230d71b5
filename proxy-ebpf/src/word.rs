//! A word in a map that all CPUs share.
//!
//! The compiler takes BPF for a machine without atomic instructions. Aligned words are read and written whole there all
//! the same, and the one instruction that adds to memory is written out.

use core::{marker::PhantomData, sync::atomic::AtomicU64};

/// Read, written and added to as a whole. Nothing is promised of the order in which others see it.
#[derive(Clone, Copy)]
pub struct Word<'a>(*mut u64, PhantomData<&'a AtomicU64>);

impl Word<'_> {
    /// # Safety
    /// `word` must be aligned and stay, and nobody may access it otherwise than as a whole.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn of(word: *mut u64) -> Self {
        Self(word, PhantomData)
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Word<'_> {
    #[inline(always)]
    #[must_use]
    pub fn load(self) -> u64 {
        self.atomic().load(core::sync::atomic::Ordering::Relaxed)
    }

    #[inline(always)]
    pub fn store(self, value: u64) {
        self.atomic().store(value, core::sync::atomic::Ordering::Relaxed);
    }

    #[inline(always)]
    pub fn increment(self) {
        self.add(1);
    }

    #[inline(always)]
    pub fn add(self, more: u64) {
        self.atomic().fetch_add(more, core::sync::atomic::Ordering::Relaxed);
    }

    fn atomic(&self) -> &AtomicU64 {
        // SAFETY: as `of` was promised.
        unsafe { AtomicU64::from_ptr(self.0) }
    }
}

#[cfg(target_arch = "bpf")]
impl Word<'_> {
    #[inline(always)]
    #[must_use]
    pub fn load(self) -> u64 {
        // SAFETY: as `of` was promised; volatile, so that it is one load.
        unsafe { core::ptr::read_volatile(self.0) }
    }

    #[inline(always)]
    pub fn store(self, value: u64) {
        // SAFETY: as for loading.
        unsafe { core::ptr::write_volatile(self.0, value) }
    }

    #[inline(always)]
    pub fn increment(self) {
        self.add(1);
    }

    #[inline(always)]
    pub fn add(self, more: u64) {
        // SAFETY: it adds to the word, as `of` was promised, and touches nothing else.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {more}",
                word = in(reg) self.0,
                more = in(reg) more,
                options(nostack),
            );
        }
    }
}
