//! The entries of large hash maps: read thousands at a time, and taken out one by one with what they held.

use std::{io, mem::MaybeUninit, os::fd::BorrowedFd};

use aya::Pod;
use nix::libc;

use super::{bpf, number};

const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: i32 = 21;
const BPF_MAP_LOOKUP_BATCH: i32 = 24;
const BPF_NOEXIST: u64 = 1;

/// Read in one call. More than any bucket of a map with a good hash ever holds.
const AT_ONCE: usize = 4096;

/// All entries of a hash map, as they are while this reads: some may be missing that come or go meanwhile.
///
/// # Safety
/// The map must be a hash map with keys as large as `K` and values as large as `V`.
pub unsafe fn all<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        from: u64,
        to: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let mut keys = vec![MaybeUninit::<K>::uninit(); AT_ONCE];
    let mut values = vec![MaybeUninit::<V>::uninit(); AT_ONCE];
    // For a hash map, where it is at: four bytes. The kernel may write as many as a key has.
    let mut at = MaybeUninit::<[u64; 16]>::zeroed();
    const { assert!(size_of::<K>() <= 16 * 8) };
    let mut begun = false;
    loop {
        let place = at.as_mut_ptr().addr() as u64;
        let mut attr = Batch {
            from: if begun { place } else { 0 },
            to: place,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: AT_ONCE as u32,
            map: number(map),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values, of the sizes that the caller promises, to memory that
        // has room for them, and its place to `at`; all of it outlives the call.
        let ended = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => false,
            // There is nothing behind these.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            // SAFETY: the kernel wrote the first `count` of both, and any bytes are good ones (`Pod`).
            each(unsafe { key.assume_init_ref() }, unsafe { value.assume_init_ref() });
        }
        if ended {
            return Ok(());
        }
        begun = true;
    }
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Takes an entry out if what it holds then still is `unwanted`, and says whether it was. No packet ever sees it gone and back, save
/// one that comes in the moment in which a wanted entry is put back.
///
/// # Safety
/// As for [`all`].
pub unsafe fn remove_if<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    unwanted: impl FnOnce(&V) -> bool,
) -> io::Result<bool> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = Element {
        map: number(map),
        padding: 0,
        key: (&raw const *key).addr() as u64,
        value: value.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads a key and writes a value, both as large as the caller promises.
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
        outcome => outcome?,
    };
    // SAFETY: the kernel wrote all of it, and any bytes are good ones (`Pod`).
    let value = unsafe { value.assume_init() };
    if unwanted(&value) {
        return Ok(true);
    }
    let mut attr = Element {
        map: number(map),
        padding: 0,
        key: (&raw const *key).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: BPF_NOEXIST,
    };
    // SAFETY: the kernel reads a key and a value, both as large as the caller promises.
    match unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) } {
        // A packet was quicker, and what it made is newer.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        outcome => outcome.map(|_| false),
    }
}
