//! How far a TCP connection is, asked of its socket: what only TCP_REPAIR tells, and TCP_INFO.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::libc;

const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_TIMESTAMP: i32 = 24;
const NO_QUEUE: i32 = 0;
const RECEIVED: i32 = 1;
const SENT: i32 = 2;

/// What is closed in this mode says nothing to the other side.
const SILENT: i32 = 1;
/// Out of it, without a packet that probes the other side's window.
const NORMAL: i32 = -1;
/// Out of it, with one.
const PROBING: i32 = 0;

const ESTABLISHED: u8 = 1;

/// The kernel's `struct tcp_info`, as far as it is of interest. An older kernel writes less; the rest stays zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Info {
    pub state: u8,
    _congestion: [u8; 4],
    /// Of [`options`].
    pub options: u8,
    /// How the other side scales its windows, and how this one does: four bits each, the first the lower ones.
    scales: u8,
    _delivery: u8,
    _timeouts: [u32; 2],
    /// The longest segment that is sent.
    pub longest_sent: u32,
    _before_path: [u32; 10],
    /// The largest packet that the way to the other side carries.
    pub path: u32,
    _before_window: [u32; 4],
    /// Segments that may be on their way.
    pub window: u32,
    /// The longest segment that was announced to the other side.
    pub announced: u32,
    _before_misplaced: [u32; 34],
    /// Segments that came before others that they follow.
    pub misplaced: u32,
    /// Bytes that the other side takes.
    pub taken: u32,
}

const _: () = assert!(std::mem::offset_of!(Info, longest_sent) == 16);
const _: () = assert!(std::mem::offset_of!(Info, path) == 60);
const _: () = assert!(std::mem::offset_of!(Info, window) == 80);
const _: () = assert!(std::mem::offset_of!(Info, announced) == 84);
const _: () = assert!(std::mem::offset_of!(Info, misplaced) == 224);

/// What both sides have agreed on.
pub mod options {
    pub const TIME: u8 = 1;
    pub const SELECTIVE: u8 = 2;
    pub const SCALE: u8 = 4;
    pub const CONGESTION: u8 = 8;
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the next byte that is sent.
    pub sent: u32,
    /// The number of the next byte that is expected.
    pub received: u32,
    /// What its next timestamp would be.
    pub time: u32,
}

impl Info {
    pub const fn is_established(&self) -> bool {
        self.state == ESTABLISHED
    }

    pub const fn scale_of_other(&self) -> u8 {
        self.scales & 15
    }

    pub const fn own_scale(&self) -> u8 {
        self.scales >> 4
    }

    #[cfg(test)]
    pub const fn established(options: u8, scale_of_other: u8, own_scale: u8) -> Self {
        Self {
            state: ESTABLISHED,
            _congestion: [0; 4],
            options,
            scales: scale_of_other | own_scale << 4,
            _delivery: 0,
            _timeouts: [0; 2],
            longest_sent: 1448,
            _before_path: [0; 10],
            path: 1500,
            _before_window: [0; 4],
            window: 10,
            announced: 1460,
            _before_misplaced: [0; 34],
            misplaced: 0,
            taken: 65_535,
        }
    }
}

pub fn info(socket: BorrowedFd<'_>) -> io::Result<Info> {
    // SAFETY: integers only, of which zeros are good.
    let mut info: Info = unsafe { std::mem::zeroed() };
    // SAFETY: likewise, whatever is written.
    unsafe { get(socket, libc::TCP_INFO, &mut info) }?;
    Ok(info)
}

/// From now on nothing that becomes of the socket is told to the other side.
pub fn silence(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, TCP_REPAIR, SILENT)
}

pub fn wake(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, TCP_REPAIR, NORMAL)
}

/// Sends the other side an acknowledgement with the number before the next one, at once.
pub fn wake_and_probe(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, TCP_REPAIR, PROBING)
}

/// Of a socket that is silent.
pub fn position(socket: BorrowedFd<'_>) -> io::Result<Position> {
    let sent = number(socket, SENT)?;
    let received = number(socket, RECEIVED)?;
    set(socket, TCP_REPAIR_QUEUE, NO_QUEUE)?;
    let mut time = 0_u32;
    // SAFETY: a number.
    unsafe { get(socket, TCP_TIMESTAMP, &mut time) }?;
    Ok(Position { sent, received, time })
}

fn number(socket: BorrowedFd<'_>, queue: i32) -> io::Result<u32> {
    set(socket, TCP_REPAIR_QUEUE, queue)?;
    let mut number = 0_u32;
    // SAFETY: a number.
    unsafe { get(socket, TCP_QUEUE_SEQ, &mut number) }?;
    Ok(number)
}

/// Bytes that came and weren't read.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<u32> {
    waiting(socket, libc::FIONREAD)
}

/// Bytes that were written and aren't acknowledged.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    waiting(socket, libc::TIOCOUTQ)
}

fn waiting(socket: BorrowedFd<'_>, which: libc::Ioctl) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both write one number.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), which, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.unsigned_abs()) }
}

fn set(socket: BorrowedFd<'_>, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads one number.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// Any bytes must be a `T`.
unsafe fn get<T>(socket: BorrowedFd<'_>, option: i32, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most as many bytes as there are, and any are good, as the caller promises.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut *value).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
