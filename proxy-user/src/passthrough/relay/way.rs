//! One way of a relay.

use std::{
    cell::Cell,
    io,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use crate::passthrough::pipes::{BUFFER, Pipe, Pipes};

/// Looked at so often before others get their turn.
const TURNS: u32 = 32;

/// After so many full buffers one after the other, more is expected, and goes through a pipe.
const FULL: u8 = 2;

/// A pipe that is filled with less than this costs more than a copy; after so many of these it is given up.
const LITTLE: usize = 16 * 1024;
const FEW: u8 = 4;

pub struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    carried: &'a Cell<u64>,
    moved: &'a dyn Fn(u64),
    held: Held,
    /// Whether bytes go through a pipe, and how often one after the other that looked wrong.
    bulk: bool,
    doubts: u8,
    state: State,
}

/// What was read and not yet written.
enum Held {
    Nothing,
    Bytes(Vec<u8>, usize),
    Pipe(Pipe),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All was read.
    Ending,
    /// All was written, and the other side told so.
    Over,
    /// And the side that was read from was found broken and told of.
    Forgotten,
}

/// Whether it broke where it was read from, and how.
type Broke = (bool, io::Error);

impl<'a> Way<'a> {
    pub fn new(
        from: &'a TcpStream,
        to: &'a TcpStream,
        carried: &'a Cell<u64>,
        moved: &'a dyn Fn(u64),
    ) -> Self {
        Self { from, to, carried, moved, held: Held::Nothing, bulk: false, doubts: 0, state: State::Open }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over | State::Forgotten)
    }

    pub fn is_forgotten(&self) -> bool {
        self.state == State::Forgotten
    }

    /// How the side that was read from is broken, after all.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.state = State::Forgotten;
        self.from.take_error().ok().flatten()
    }

    /// Carries as much as there is.
    pub fn poll(&mut self, cx: &mut Context<'_>, pipes: &Pipes) -> Poll<Result<(), Broke>> {
        for _ in 0..TURNS {
            ready!(self.poll_write(cx, pipes)).map_err(|error| (false, error))?;
            if self.state == State::Ending {
                // Gone already, or told so already: what it still says is heard all the same.
                let _ = SockRef::from(self.to).shutdown(std::net::Shutdown::Write);
                self.state = State::Over;
            }
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read(cx, pipes)).map_err(|error| (true, error))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held, until nothing is.
    fn poll_write(&mut self, cx: &mut Context<'_>, pipes: &Pipes) -> Poll<io::Result<()>> {
        loop {
            let written = match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Bytes(bytes, at) => {
                    let written = self.to.try_write(&bytes[*at..]);
                    *at += written.as_ref().copied().unwrap_or_default();
                    written
                }
                Held::Pipe(pipe) => self.to.try_io(Interest::WRITABLE, || pipe.drain(self.to)),
            };
            match written {
                Ok(written) => {
                    self.count(written);
                    match std::mem::replace(&mut self.held, Held::Nothing) {
                        Held::Bytes(bytes, at) if at < bytes.len() => self.held = Held::Bytes(bytes, at),
                        Held::Pipe(pipe) if pipe.holds > 0 => self.held = Held::Pipe(pipe),
                        Held::Pipe(pipe) => pipes.give_back(pipe),
                        Held::Bytes(..) | Held::Nothing => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.to.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads once. Nothing is held before it.
    fn poll_read(&mut self, cx: &mut Context<'_>, pipes: &Pipes) -> Poll<io::Result<()>> {
        loop {
            let read = if self.bulk { self.splice(pipes) } else { self.copy(pipes) };
            match read {
                Ok(0) => {
                    self.state = State::Ending;
                    return Poll::Ready(Ok(()));
                }
                Ok(length) => {
                    self.reconsider(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.from.poll_read_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn splice(&mut self, pipes: &Pipes) -> io::Result<usize> {
        let Ok(mut pipe) = pipes.take() else {
            // Too many, or out of descriptors: slower, but it goes on.
            self.bulk = false;
            return self.copy(pipes);
        };
        let read = self.from.try_io(Interest::READABLE, || pipe.fill(self.from));
        match read {
            Ok(1..) => self.held = Held::Pipe(pipe),
            _ => pipes.give_back(pipe),
        }
        read
    }

    fn copy(&mut self, pipes: &Pipes) -> io::Result<usize> {
        let mut buffer = pipes.buffer.borrow_mut();
        let read = self.from.try_read(&mut buffer)?;
        // Mostly it can be written at once, and needs no place of its own.
        let written = self.to.try_write(&buffer[..read]).unwrap_or(0);
        self.count(written);
        if written < read {
            // Why it can't be written is found out when that is tried again.
            self.held = Held::Bytes(buffer[written..read].to_vec(), 0);
        }
        Ok(read)
    }

    fn count(&self, written: usize) {
        self.carried.set(self.carried.get() + written as u64);
        (self.moved)(written as u64);
    }

    fn reconsider(&mut self, length: usize) {
        let (wrong, most) = if self.bulk { (length < LITTLE, FEW) } else { (length == BUFFER, FULL) };
        self.doubts = if wrong { self.doubts + 1 } else { 0 };
        if self.doubts == most {
            (self.bulk, self.doubts) = (!self.bulk, 0);
        }
    }
}
