//! HTTP/1.1 with a server, over one connection and without a task of its own: whoever waits for the answer drives it.
//!
//! A request is borrowed until an answer is there, so that it can be sent again without a copy of it. What is idle in
//! the pool is looked at when it is taken out. Answers that could be understood in two ways are refused.

pub mod answer;
mod ask;
mod framing;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{StatusCode, header, request, response};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use self::ask::Asking;
pub use self::{
    ask::{end_chunks, field},
    framing::{Framing, Piece},
};
use crate::{
    body::{RequestBody, RequestFault},
    upstream::stream::Stream,
};

/// As much as is read at first: a head, and a small body behind it.
const FIRST_READ: usize = 8 * 1024;

/// As much as is read at a time, at most.
const LARGEST_READ: usize = 128 * 1024;

/// Why there is no answer, or not all of it; over HTTP/2 too.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Io(io::Error),
    #[error("the server closed the connection too early")]
    Closed,
    #[error("the server's answer is malformed: {0}")]
    Malformed(Malformed),
    #[error("the client's request broke off: {0}")]
    Client(RequestFault),
    #[error(transparent)]
    Http2(hyper::Error),
    #[error("the client's request broke off: {0}")]
    ClientOverHttp2(hyper::Error),
    #[error("the request's body is not as long as its head says")]
    WrongLength,
    #[error(
        "the server speaks HTTP/2, and takes no WebSockets over it (no SETTINGS_ENABLE_CONNECT_PROTOCOL)"
    )]
    NoTunnel,
}

/// What is wrong with a server's answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0}")]
    Head(httparse::Error),
    #[error("its fields are too long")]
    TooLong,
    #[error("a field in it can't be passed on")]
    Field,
    #[error("there is no status {0}")]
    Status(u16),
    #[error("it switches to another protocol, and nobody asked for one")]
    Unasked,
    #[error("it has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    #[error("its Transfer-Encoding is not just `chunked`")]
    Coding,
    #[error("its Content-Length is not one number")]
    Length,
    #[error("its chunks are malformed")]
    Chunk,
}

/// Who hears what a server says before its answer: informational heads (RFC 9110 §15.2).
#[derive(Clone, Copy, Default)]
pub struct Early<'a>(Option<&'a dyn Fn(response::Parts)>);

/// A connection to a server. Boxed, since it moves between the pool and the answers' bodies.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    received: BytesMut,
    /// So much of `received` is known not to end a head.
    searched: usize,
    asking: Asking,
    framing: Framing,
    keeps_alive: bool,
    /// How much to read at a time, as reads have lately been worth it.
    read: usize,
}

// === impl Early ===

impl<'a> Early<'a> {
    pub fn to(hears: &'a dyn Fn(response::Parts)) -> Self {
        Self(Some(hears))
    }

    fn tell(self, head: response::Parts) {
        if let Some(hears) = self.0 {
            hears(head);
        }
    }
}

impl std::fmt::Debug for Early<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Early").field(&self.0.is_some()).finish()
    }
}

// === impl Connection ===

impl Connection {
    pub fn new(stream: Stream) -> Box<Self> {
        Box::new(Self {
            stream,
            received: BytesMut::new(),
            searched: 0,
            asking: Asking::default(),
            framing: Framing::OVER,
            keeps_alive: true,
            read: FIRST_READ,
        })
    }

    /// Sends a request, and waits for the head of its answer. The rest of the request, if the server answers before
    /// it has all of it, is sent while the answer's body is read.
    ///
    /// # Errors
    /// When the connection is of no more use. [`Self::take_back`] tells whether the request is.
    pub async fn exchange(
        &mut self,
        head: &request::Parts,
        body: RequestBody,
        early: Early<'_>,
    ) -> Result<response::Parts, Fault> {
        self.asking.begin(head, body);
        poll_fn(|cx| self.poll_answer(head, early, cx)).await
    }

    /// The body of a request of which nothing has been sent.
    pub fn take_back(&mut self) -> Option<RequestBody> {
        self.asking.take_back()
    }

    /// Whether another request may be sent: the answer was read to its end, and nobody closes.
    pub fn is_reusable(&self) -> bool {
        self.keeps_alive && self.framing.is_over() && self.asking.is_over() && self.received.is_empty()
    }

    /// Whether the server has kept quiet while nothing was asked of it.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// Whether the answer's body has been read to its end.
    pub fn is_at_end(&self) -> bool {
        self.framing.is_over()
    }

    /// What is left of the answer's body, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.framing.exact()
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Err(fault) = self.keep_asking(cx) {
            return Poll::Ready(Some(Err(fault)));
        }
        loop {
            match self.framing.next(&mut self.received) {
                Err(malformed) => return Poll::Ready(Some(Err(Fault::Malformed(malformed)))),
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::Over) => return Poll::Ready(None),
                Ok(Piece::Short) => {}
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) if self.framing == Framing::UntilClose => {
                    self.framing = Framing::OVER;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(Fault::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Fault::Io(error)))),
            }
        }
    }

    fn poll_answer(
        &mut self,
        asked: &request::Parts,
        early: Early<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, Fault>> {
        self.keep_asking(cx)?;
        loop {
            let head = answer::take(&mut self.received, &mut self.searched, &asked.method);
            if let Some(head) = head.map_err(Fault::Malformed)? {
                match head.parts.status {
                    StatusCode::SWITCHING_PROTOCOLS if !asked.headers.contains_key(header::UPGRADE) => {
                        return Poll::Ready(Err(Fault::Malformed(Malformed::Unasked)));
                    }
                    StatusCode::SWITCHING_PROTOCOLS => {}
                    // What is informational precedes the answer proper.
                    status if status.is_informational() => {
                        early.tell(head.parts);
                        continue;
                    }
                    _ => {}
                }
                (self.framing, self.keeps_alive) = (head.framing, self.keeps_alive && head.keeps_alive);
                return Poll::Ready(Ok(head.parts));
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) => return Poll::Ready(Err(Fault::Closed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Fault::Io(error))),
            }
        }
    }

    /// Sends what is left of the request. A server that reads no more of it may still have answered: then this
    /// connection has just had its last request.
    fn keep_asking(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.asking.is_over() {
            return Ok(());
        }
        match self.asking.poll_send(&mut self.stream, cx) {
            Poll::Ready(Err(Fault::Io(error))) => {
                tracing::trace!(%error, "the server reads no more of the request");
                self.keeps_alive = false;
                // What wasn't sent at all can be sent elsewhere.
                if self.asking.sent > 0 {
                    self.asking.abandon();
                    return Ok(());
                }
                Err(Fault::Io(error))
            }
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // One byte more than what is left: a read that doesn't fill its buffer tells that there is nothing more, and saves
        // one that finds that out.
        let left = self.framing.exact().map_or(0, |left| usize::try_from(left).unwrap_or(LARGEST_READ));
        let wanted = self.read.max(left.saturating_add(1).min(LARGEST_READ));
        if self.received.capacity() - self.received.len() < wanted / 2 {
            self.received.reserve(wanted);
        }
        let room = self.received.capacity() - self.received.len();
        let received = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(cx))?;
        self.read = next_read(self.read, received, room);
        Poll::Ready(Ok(received))
    }
}

/// A full buffer: there was more, and it is better read, and sent on, in fewer pieces. So it is with the next answer, which is
/// likely to be of a kind, until reads bring little again.
fn next_read(read: usize, received: usize, room: usize) -> usize {
    if received == room {
        (read * 2).min(LARGEST_READ)
    } else if received < read / 8 {
        (read / 2).max(FIRST_READ)
    } else {
        read
    }
}

/// Bytes in another protocol, after the server has switched to it.
impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.received.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received[..length]);
        this.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
