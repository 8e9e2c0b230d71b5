//! What the verifier must not know, because it would follow it.

/// A number of which the verifier forgets how we came by it. It follows each way to a number by itself, and would follow
/// each of them through all that comes after, as long as it sees a difference.
///
/// It knows what it has seen being stored, and forgets it when a part is read from the middle of that. As one number: put
/// together from bytes, it would have no bounds on Linux 6.1.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn forgotten(number: u16) -> u16 {
    let mut spot = 0_u64;
    let parts = (&raw mut spot).cast::<u16>();
    // SAFETY: a local variable of four such parts.
    unsafe {
        core::ptr::write_volatile(&raw mut spot, u64::from(number) << 16);
        core::ptr::read_volatile(parts.add(1))
    }
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
#[must_use]
pub fn forgotten(number: u16) -> u16 {
    number
}
