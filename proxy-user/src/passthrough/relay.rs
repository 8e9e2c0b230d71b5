//! Carries bytes both ways between two sockets, until both sides have said that it was all, or one of them breaks.
//!
//! A side that can't take more holds up the other: nothing is read before what was read is written. What ends one way ends it
//! for the other side too, and only that way (half-close); what breaks is broken for both.

mod way;

use std::{cell::Cell, future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use self::way::Way;
use super::pipes::Pipes;

/// When one side breaks, what the other has not been sent yet gets so long to leave, looked at so often.
const FLUSH: Duration = Duration::from_millis(500);
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// How it ended by itself.
#[derive(Debug)]
pub enum Ended {
    /// Both have said that it was all; this one first.
    Closed(Side),
    /// A side is gone.
    Broken(Side, io::Error),
}

/// How many bytes have gone each way; known also if the relay is given up.
#[derive(Debug, Default)]
pub struct Carried {
    pub to_server: Cell<u64>,
    pub to_client: Cell<u64>,
}

/// `moved` is told of what went to the server, and to the client.
pub async fn relay(
    client: &TcpStream,
    server: &TcpStream,
    pipes: &Pipes,
    carried: &Carried,
    moved: [&dyn Fn(u64); 2],
) -> Ended {
    let [to_server, to_client] = moved;
    let mut up = Way::new(client, server, &carried.to_server, to_server);
    let mut down = Way::new(server, client, &carried.to_client, to_client);
    // Whoever has said that it was all may break later, and is not read from any more.
    let mut client_breaks = pin!(client.ready(Interest::ERROR));
    let mut server_breaks = pin!(server.ready(Interest::ERROR));
    let mut first = None;
    poll_fn(|cx| {
        for (way, side, breaks) in [
            (&mut up, Side::Client, client_breaks.as_mut()),
            (&mut down, Side::Server, server_breaks.as_mut()),
        ] {
            if way.is_over() {
                if let Poll::Ready(Ok(ready)) = breaks.poll(cx)
                    && ready.is_error()
                    && !way.is_forgotten()
                    && let Some(error) = way.broken()
                {
                    return Poll::Ready(Ended::Broken(side, error));
                }
                continue;
            }
            match way.poll(cx, pipes) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    first.get_or_insert(side);
                    // Its turn to be watched has come: once more around.
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Err((reading, error))) => {
                    let broken = if reading { side } else { side.other() };
                    return Poll::Ready(Ended::Broken(broken, error));
                }
            }
        }
        match first.filter(|_| up.is_over() && down.is_over()) {
            Some(first) => Poll::Ready(Ended::Closed(first)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Breaks a connection whose other side is broken; what it was sent already may still arrive.
pub async fn pass_reset_on(stream: &TcpStream) {
    let until = Instant::now() + FLUSH;
    while unsent(stream) > 0 && Instant::now() < until {
        sleep(FLUSH_LOOK).await;
    }
    // Fails only if it is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// What the other side has not acknowledged.
fn unsent(stream: &TcpStream) -> i32 {
    use std::os::fd::AsRawFd;
    nix::ioctl_read_bad!(outgoing, nix::libc::TIOCOUTQ, nix::libc::c_int);
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `stream` lives, and SIOCOUTQ (the same number) writes one int.
    unsafe { outgoing(stream.as_raw_fd(), &raw mut bytes) }.map_or(0, |_| bytes)
}

/// Until the deadline, if there is one.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Side {
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

#[cfg(test)]
mod tests;
