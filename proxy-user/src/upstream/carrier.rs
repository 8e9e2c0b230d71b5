//! What carries one request to a server and its answer back, whichever HTTP the server speaks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{request, response};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    body::RequestBody,
    upstream::{
        http1::{Connection, Early, Fault},
        http2::Stream,
    },
};

#[derive(Debug)]
pub enum Carrier {
    /// A connection, for this request alone.
    Http1(Box<Connection>),
    /// One of the streams of a connection.
    Http2(Box<Stream>),
}

impl Carrier {
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When none comes. [`Self::take_back`] and [`Self::is_refused`] tell what may become of the request.
    pub async fn exchange(
        &mut self,
        head: &request::Parts,
        body: RequestBody,
        early: Early<'_>,
    ) -> Result<response::Parts, Fault> {
        match self {
            Self::Http1(connection) => connection.exchange(head, body, early).await,
            // hyper tells of what comes early only to those who may be on another thread. Boxed, since it is large, and would
            // make every request's future as large.
            Self::Http2(stream) => Box::pin(stream.exchange(head, body)).await,
        }
    }

    /// The body of a request of which nothing has been sent.
    pub fn take_back(&mut self) -> Option<RequestBody> {
        match self {
            Self::Http1(connection) => connection.take_back(),
            Self::Http2(stream) => stream.take_back(),
        }
    }

    /// Whether the server has said that it did nothing of the request.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(stream) => stream.is_refused(),
        }
    }

    /// Whether the answer's body has been read to its end.
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_at_end(),
            Self::Http2(stream) => stream.is_at_end(),
        }
    }

    /// What is left of the answer's body, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Http1(connection) => connection.remaining(),
            Self::Http2(stream) => stream.remaining(),
        }
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self {
            Self::Http1(connection) => connection.poll_frame(cx),
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }
}

/// Bytes in another protocol, after the server has switched to it.
impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection).poll_read(cx, buffer),
            Self::Http2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection).poll_write(cx, bytes),
            Self::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection).poll_flush(cx),
            Self::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
