//! Looks at a connection's hello without taking it: whoever gets the connection reads it from its first byte.
//!
//! Nearly every hello is there at the first look. Of one that isn't, the kernel is told how much is still missing
//! (SO_RCVLOWAT), and wakes nobody before that is there: a hello that comes byte by byte costs little more than any other.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, recv},
};
use tokio::{io::Interest, net::TcpStream, time::timeout};

use super::{
    client_hello::{Hello, LONGEST, Read, Reader, Unreadable},
    pipes::Pipes,
};

/// What came of a look.
#[derive(Debug)]
pub enum Looked {
    Hello(Hello),
    /// It is none, or none that can be read.
    Other(Unreadable),
    /// The client has left, or can't be heard.
    Closed,
    /// Not all of it has come in time, and perhaps nothing at all.
    Late,
}

pub async fn hello(stream: &TcpStream, pipes: &Pipes, within: Duration) -> Looked {
    let mut awaited = 1;
    let looked = timeout(within, look(stream, pipes, &mut awaited)).await;
    if awaited > 1 {
        wake_at(stream, 1);
    }
    looked.unwrap_or(Looked::Late)
}

async fn look(stream: &TcpStream, pipes: &Pipes, awaited: &mut usize) -> Looked {
    let mut reader = Reader::default();
    let mut seen = 0;
    let mut large = Vec::new();
    loop {
        let Ok(ready) = stream.ready(Interest::READABLE).await else { return Looked::Closed };
        let read = stream.try_io(Interest::READABLE, || {
            let mut small = pipes.buffer.borrow_mut();
            let buffer = if *awaited > small.len() { &mut large } else { &mut **small };
            let length = recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
            // Nothing new: so the next look waits for more.
            if length <= seen && length > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            seen = length;
            Ok(reader.read(&buffer[..length]))
        });
        match read {
            Ok(_) if seen == 0 => return Looked::Closed,
            Ok(Ok(Read::Whole(hello))) => return Looked::Hello(hello),
            Ok(Err(unreadable)) => return Looked::Other(unreadable),
            Ok(Ok(Read::More(more))) => {
                *awaited = seen + more;
                large.resize(if *awaited > super::pipes::BUFFER { LONGEST } else { 0 }, 0);
                wake_at(stream, *awaited);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ready.is_read_closed() {
                    return Looked::Closed;
                }
            }
            Err(_) => return Looked::Closed,
        }
    }
}

/// Without it the task is woken for each byte: it costs more, and works all the same.
fn wake_at(stream: &TcpStream, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let size = libc::socklen_t::try_from(size_of_val(&bytes)).unwrap_or_default();
    // SAFETY: the descriptor is open as long as `stream` lives, and the option is read from an int of that size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
    if let Err(error) = Errno::result(result) {
        tracing::debug!(%error, "can't tell the kernel how much of a hello is missing");
    }
}

#[cfg(test)]
mod tests;
