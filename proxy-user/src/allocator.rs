//! How the system's allocator treats the buffers that bodies pass through.
//!
//! glibc gives memory at the top of its heap back to the kernel as soon as 128 KiB of it are free, and takes requests
//! of that size from the kernel directly. A proxy allocates and frees buffers of 64 to 400 KiB for each large body: with
//! these settings every one of them is mapped, zeroed page by page, and unmapped again.
//!
//! And it keeps small pieces that are free in lists of their own, which it walks through and merges each time somebody
//! asks for more than 1 KiB. Every request does: what a thread keeps at hand is enough without these lists.

/// Keeps up to 64 MiB that are free, takes buffers below 4 MiB from the heap, and keeps no small pieces apart.
#[cfg(target_env = "gnu")]
pub fn tune() {
    use nix::libc;
    const KEEP: i32 = 64 << 20;
    const FROM_HEAP: i32 = 4 << 20;
    let settings = [(libc::M_TRIM_THRESHOLD, KEEP), (libc::M_MMAP_THRESHOLD, FROM_HEAP), (libc::M_MXFAST, 0)];
    for (setting, value) in settings {
        // SAFETY: mallopt takes plain integers and locks the allocator itself; it may be called at any time.
        if unsafe { libc::mallopt(setting, value) } != 1 {
            tracing::debug!(setting, value, "the allocator refuses the setting");
        }
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn tune() {}
