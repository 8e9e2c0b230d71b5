//! The few `bpf(2)` commands that aya hides or does otherwise.
//!
//! aya's `attach` falls back to netlink without a word when the kernel answers EINVAL, and such an attachment
//! can't be pinned nor told from a good one afterwards; it doesn't say which interface a link is on; it can't
//! empty a slot of an array of maps; and it passes a map's values over the stack, however large. Structures are
//! those of `linux/bpf.h`, which the kernel keeps stable; it reads as many bytes as it is told there are, and
//! takes the rest for zero.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;

pub mod clsact;
pub mod entries;
pub mod link;
pub mod netlink;
pub mod present;
pub mod program;
pub mod route;
pub mod table;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

#[repr(C)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct GetInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { path: path.as_ptr().addr() as u64, descriptor: number(object), flags: 0 };
    // SAFETY: `path` ends with NUL and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { path: path.as_ptr().addr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: `path` ends with NUL and outlives the call; OBJ_GET returns a new descriptor.
    unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is open, so its number isn't negative.
    descriptor.as_raw_fd().unsigned_abs()
}

/// # Safety
/// `command` must return a descriptor that nobody else owns; and as for [`bpf`].
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: passed on.
    let descriptor = unsafe { bpf(command, attr) }?;
    // SAFETY: new and ours, as the caller promises.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// `T` must be what `command` expects, and the addresses in it must be good for what the command does there.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attr`; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
