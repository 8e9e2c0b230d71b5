//! The body of a request that came over HTTP/3: streamed, as long as was said, with trailers.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h3::{error::StreamError, server::RequestStream};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{
    early::Listener,
    quic::{Meter, RecvStream},
};

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("it is not as long as its content-length says")]
    Length,
}

/// What the client sends behind the head.
pub struct Body {
    stream: RequestStream<RecvStream, Bytes>,
    meter: Rc<Meter>,
    listener: Listener,
    /// What is missing of the length that was said.
    left: Option<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Taken already, to know whether there is a body.
    First(Bytes),
    Data,
    Trailers,
    OnlyTrailers(HeaderMap),
    Over,
}

impl Body {
    pub fn unread(stream: RequestStream<RecvStream, Bytes>, meter: Rc<Meter>, listener: Listener) -> Self {
        Self { stream, meter, listener, left: None, state: State::Data }
    }

    /// Who hears what a server says before its answer.
    pub fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// What its head said.
    pub fn is_to_have(&mut self, length: Option<u64>) {
        self.left = length;
    }

    /// Finds out whether there is a body at all. HTTP/3 does not say so in the head, and the end of the stream may come
    /// a moment later; clients that mean to send none send it at once. With `wait`, until it is known.
    ///
    /// # Errors
    /// When the client breaks off.
    pub async fn begin(&mut self, wait: bool) -> Result<(), BodyFault> {
        let first = poll_fn(|cx| match self.poll_data(cx) {
            Poll::Pending if !wait => Poll::Ready(None),
            polled => polled.map(Some),
        });
        match first.await {
            None => Ok(()),
            Some(Ok(Some(data))) => {
                self.state = State::First(data);
                Ok(())
            }
            Some(Ok(None)) => self.ended(),
            Some(Err(fault)) => Err(fault),
        }
    }

    /// The data is over: trailers may follow, unless the stream is at its end with nothing sent.
    fn ended(&mut self) -> Result<(), BodyFault> {
        self.state = State::Over;
        if self.left.is_some_and(|left| left > 0) {
            return Err(BodyFault::Length);
        }
        // Here the library knows already whether trailers came, or the end.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.state = match self.stream.poll_recv_trailers(&mut cx) {
            Poll::Ready(trailers) => trailers?.map_or(State::Over, State::OnlyTrailers),
            Poll::Pending => State::Trailers,
        };
        Ok(())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyFault>> {
        let Some(mut data) = ready!(self.stream.poll_recv_data(cx))? else { return Poll::Ready(Ok(None)) };
        let bytes = data.copy_to_bytes(data.remaining());
        self.meter.takes(bytes.len() as u64);
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes.len() as u64).ok_or(BodyFault::Length)?;
        }
        Poll::Ready(Ok(Some(bytes)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::First(data) => {
                    let data = std::mem::take(data);
                    this.state = State::Data;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::Data => match ready!(this.poll_data(cx)) {
                    Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(None) if this.left.is_some_and(|left| left > 0) => {
                        this.state = State::Over;
                        return Poll::Ready(Some(Err(BodyFault::Length)));
                    }
                    Ok(None) => this.state = State::Trailers,
                    Err(fault) => {
                        this.state = State::Over;
                        return Poll::Ready(Some(Err(fault)));
                    }
                },
                State::OnlyTrailers(trailers) => {
                    let trailers = std::mem::take(trailers);
                    this.state = State::Over;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                State::Trailers => {
                    let trailers = ready!(this.stream.poll_recv_trailers(cx));
                    this.state = State::Over;
                    let trailers = trailers.map_err(BodyFault::Stream).transpose();
                    return Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.state {
            State::First(data) => data.len() as u64,
            _ => 0,
        };
        self.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(first + left))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("left", &self.left).field("state", &self.state).finish_non_exhaustive()
    }
}
