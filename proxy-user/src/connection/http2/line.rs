//! What lies beneath a connection of HTTP/2. hyper has no way to end one with an error of ours, so the last word is written here,
//! behind its back and between two of its frames.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resets::Resets;

/// GOAWAY: any stream may have been looked at, ENHANCE_YOUR_CALM (RFC 9113 §6.8).
const CALM_DOWN: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// A client's stream, which ends when its client resets too much.
pub struct Line<S> {
    stream: S,
    resets: Rc<Resets>,
    /// hyper flushes only when whole frames have been written.
    between_frames: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub fn new(stream: S, resets: Rc<Resets>) -> Self {
        Self { stream, resets, between_frames: true }
    }

    /// An error if the connection is to end, which its client is told if it takes that at once.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.resets.are_too_many(cx) {
            return Ok(());
        }
        if std::mem::take(&mut self.between_frames)
            && let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(cx, &CALM_DOWN)
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            // It is dropped next, whatever this comes to.
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has reset too many streams"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        this.between_frames = false;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        this.between_frames = false;
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.between_frames = true;
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
