//! What a wire holds, and how bytes get in and out of it.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};

use super::SCRATCH;
use crate::{
    connection::http1::{body::BodyFault, stream::Stream},
    hygiene::{
        Fault,
        http1::{Piece, Reader},
    },
    upgrade::Crossing,
};

/// As much is read at a time of what is not a large body.
pub(super) const READ: usize = 16 * 1024;

/// As much is read at a time of a large body.
const LARGEST_READ: usize = 128 * 1024;

#[derive(Debug)]
pub(super) struct State {
    pub(super) stream: Stream,
    pub(super) reader: Reader,
    pub(super) received: BytesMut,
    /// What is to be sent, and how much of it was.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// Some of what was sent may still wait in TLS's own buffer.
    pub(super) unflushed: bool,
    /// The client knows informational heads.
    pub(super) early: bool,
    /// The client waits for a word before it sends its body.
    pub(super) expects: bool,
    /// The answer has begun.
    pub(super) answering: bool,
    /// Somebody may still read the body.
    pub(super) wanted: bool,
    /// As much as was last read at once of a body whose length isn't known.
    pub(super) read: usize,
    /// The client has closed its side.
    pub(super) ended: bool,
    /// The rule that it broke in a body.
    pub(super) fault: Option<Fault>,
    /// Who waits for the body to end, to look after the client itself.
    pub(super) watcher: Option<Waker>,
    pub(super) switch: Option<Crossing>,
}

impl State {
    /// Receives some more, by way of the worker's own buffer.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            self.received.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Receives more of a body: much at a time where there is much to come.
    pub(super) fn poll_receive_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = match self.reader.left() {
            Some(left) if left < READ as u64 => return self.poll_receive(cx),
            Some(left) => usize::try_from(left).unwrap_or(LARGEST_READ).min(LARGEST_READ),
            None if self.read <= READ => return self.poll_receive(cx).map_ok(|received| self.grow(received)),
            None => self.read,
        };
        if self.received.capacity() - self.received.len() < wanted / 2 {
            self.received.reserve(wanted);
        }
        let received = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(cx))?;
        Poll::Ready(Ok(self.grow(received)))
    }

    /// When as much came as was asked for, there is more, and it is better read in fewer pieces.
    pub(super) fn grow(&mut self, received: usize) -> usize {
        self.read = if received >= self.read { (self.read * 2).min(LARGEST_READ) } else { self.read };
        received
    }

    /// The next piece of the body.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(BodyFault::Broken(fault))));
        }
        loop {
            match self.reader.body(&mut self.received) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::Over) => return Poll::Ready(None),
                Ok(Piece::Short) => {}
                Err(fault) => {
                    self.fault = Some(fault);
                    return Poll::Ready(Some(Err(BodyFault::Broken(fault))));
                }
            }
            match ready!(self.poll_receive_body(cx)) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BodyFault::Cut)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyFault::Io(error)))),
            }
        }
    }

    /// Tells a client that waits for it that its body is wanted.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        if self.answering {
            return;
        }
        if std::mem::take(&mut self.expects) && self.received.is_empty() {
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.send_early(cx);
    }

    /// Sends what comes before the answer. Mostly it goes at once; whoever doesn't take it is found out by the answer.
    pub(super) fn send_early(&mut self, cx: &mut Context<'_>) {
        while self.sent < self.out.len() {
            let Poll::Ready(Ok(sent)) = self.poll_write(&Bytes::new(), cx) else { return };
            self.sent += sent;
        }
        if self.unflushed && matches!(Pin::new(&mut self.stream).poll_flush(cx), Poll::Ready(Ok(()))) {
            self.unflushed = false;
        }
    }

    pub(super) fn poll_write(&mut self, data: &Bytes, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let out = &self.out[self.sent..];
        let stream = Pin::new(&mut self.stream);
        let sent = if data.is_empty() {
            ready!(stream.poll_write(cx, out))?
        } else if out.is_empty() {
            ready!(stream.poll_write(cx, data))?
        } else {
            ready!(stream.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(data)]))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        Poll::Ready(Ok(sent))
    }
}
