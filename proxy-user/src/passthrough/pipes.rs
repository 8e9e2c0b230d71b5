//! What bytes are carried in: a buffer for few, pipes for many.
//!
//! A pipe lets the kernel hand pages from one socket to the other (splice(2)). Making one costs more than a short transfer,
//! so they are kept; and a connection has one only while bytes are in it, so that idle connections cost none.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// So much is read at a time where bytes are copied.
pub const BUFFER: usize = 32 * 1024;

/// What a pipe shall hold. The kernel gives less to users who have many.
const CAPACITY: i32 = 512 * 1024;

/// What it holds if nothing is said.
const USUAL: usize = 64 * 1024;

/// Kept for the next who wants one.
const KEPT: usize = 64;

/// Of one worker.
#[derive(Debug)]
pub struct Pipes {
    free: RefCell<Vec<Pipe>>,
    /// Never holds anything between two calls.
    pub buffer: RefCell<Box<[u8]>>,
}

#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    capacity: usize,
    /// Bytes in it.
    pub holds: usize,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { free: RefCell::default(), buffer: RefCell::new(vec![0; BUFFER].into()) }
    }
}

impl Pipes {
    /// # Errors
    /// When the system has none left.
    pub fn take(&self) -> io::Result<Pipe> {
        let free = self.free.borrow_mut().pop();
        free.map_or_else(Pipe::new, Ok)
    }

    /// Keeps an empty pipe for the next one.
    pub fn give_back(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if pipe.holds == 0 && free.len() < KEPT {
            free.push(pipe);
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let capacity = fcntl(&into, FcntlArg::F_SETPIPE_SZ(CAPACITY)).ok();
        let capacity = capacity.and_then(|capacity| usize::try_from(capacity).ok()).unwrap_or(USUAL);
        Ok(Self { out, into, capacity, holds: 0 })
    }

    /// As much as there is. The pipe must be empty, or it couldn't be told who would block.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let moved = splice(from, None, &self.into, None, self.capacity, flags())?;
        self.holds += moved;
        Ok(moved)
    }

    /// # Errors
    /// Those of the socket.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.out, None, to, None, self.holds, flags())?;
        self.holds -= moved;
        Ok(moved)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
