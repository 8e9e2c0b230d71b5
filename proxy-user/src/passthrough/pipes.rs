//! What bytes are carried in: a buffer for few, pipes for many.
//!
//! A pipe lets the kernel hand pages from one socket to the other (splice(2)). Making one costs more than a short transfer,
//! so they are kept; and a connection has one only while bytes are in it, so that idle connections cost none.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// So much is read at a time where bytes are copied.
pub const BUFFER: usize = 32 * 1024;

/// What a pipe shall hold. The kernel gives less to users who have many.
const CAPACITY: i32 = 256 * 1024;

/// What it holds if nothing is said.
const USUAL: usize = 64 * 1024;

/// Kept for the next who wants one.
const KEPT: usize = 64;

/// A worker has no more than these: what is in them counts in no limit of the system's, and clients that don't read keep theirs
/// full. Beyond it, bytes are copied.
const MOST: usize = 1024;

/// Of one worker.
#[derive(Debug)]
pub struct Pipes {
    free: RefCell<Vec<Pipe>>,
    made: Rc<Cell<usize>>,
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
    made: Rc<Cell<usize>>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { free: RefCell::default(), made: Rc::default(), buffer: RefCell::new(vec![0; BUFFER].into()) }
    }
}

impl Pipes {
    /// # Errors
    /// When there are too many, or the system has none left.
    pub fn take(&self) -> io::Result<Pipe> {
        if let Some(free) = self.free.borrow_mut().pop() {
            return Ok(free);
        }
        if self.made.get() >= MOST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Pipe::new(&self.made)
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
    fn new(made: &Rc<Cell<usize>>) -> io::Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let capacity = fcntl(&into, FcntlArg::F_SETPIPE_SZ(CAPACITY)).ok();
        let capacity = capacity.and_then(|capacity| usize::try_from(capacity).ok()).unwrap_or(USUAL);
        made.set(made.get() + 1);
        Ok(Self { out, into, capacity, holds: 0, made: made.clone() })
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

impl Drop for Pipe {
    fn drop(&mut self) {
        self.made.set(self.made.get() - 1);
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_kept_but_never_too_many() {
        let pipes = Pipes::default();
        let all: Vec<Pipe> = (0..MOST).map_while(|_| pipes.take().ok()).collect();
        let made = all.len();
        assert!(pipes.take().is_err() && made > KEPT);
        for pipe in all {
            pipes.give_back(pipe);
        }
        assert_eq!(pipes.made.get(), KEPT);
        drop(pipes.take().unwrap());
        assert_eq!(pipes.made.get(), KEPT - 1);
    }
}
