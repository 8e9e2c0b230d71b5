//! What a route does to the body of a response: it compresses it, and it ends it when its time is over.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep_until};

use super::compress::encoder::Encoder;
use crate::body::AnswerFault;

/// So much is compressed before the worker looks after others.
const AT_ONCE: usize = 256 << 10;

#[derive(Debug)]
pub struct Shape {
    deadline: Option<Pin<Box<Sleep>>>,
    compression: Option<Compression>,
}

#[derive(Debug)]
struct Compression {
    /// `None`: its last byte is out.
    encoder: Option<Encoder>,
    /// They come behind the last byte.
    trailers: Option<Frame<Bytes>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, AnswerFault>>>;

impl Shape {
    /// `None`: the body may stay as it is.
    pub fn new(over_by: Option<Instant>, encoder: Option<Encoder>) -> Option<Self> {
        if over_by.is_none() && encoder.is_none() {
            return None;
        }
        Some(Self {
            deadline: over_by.map(|by| Box::pin(sleep_until(by.into()))),
            compression: encoder.map(|encoder| Compression { encoder: Some(encoder), trailers: None }),
        })
    }

    /// Whether other bytes come out than go in.
    pub fn compresses(&self) -> bool {
        self.compression.is_some()
    }

    /// Whether all that was compressed is out.
    pub fn is_over(&self) -> bool {
        let over = |one: &Compression| one.encoder.is_none() && one.trailers.is_none();
        self.compression.as_ref().is_some_and(over)
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Polled,
    ) -> Polled {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(AnswerFault::TookTooLong)));
        }
        match &mut self.compression {
            Some(compression) => compression.poll(cx, source),
            None => source(cx),
        }
    }
}

impl Compression {
    fn poll(&mut self, cx: &mut Context<'_>, mut source: impl FnMut(&mut Context<'_>) -> Polled) -> Polled {
        let Some(encoder) = &mut self.encoder else {
            return Poll::Ready(self.trailers.take().map(Ok));
        };
        let mut taken = 0;
        loop {
            let data = match source(cx) {
                // The server pauses: what it has sent so far is not kept back.
                Poll::Pending => {
                    return match encoder.flush() {
                        Ok(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                        Ok(None) => Poll::Pending,
                        Err(error) => Poll::Ready(Some(Err(AnswerFault::Compression(error)))),
                    };
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        return self.end();
                    }
                },
                Poll::Ready(None) => return self.end(),
                broken @ Poll::Ready(Some(Err(_))) => return broken,
            };
            if let Err(error) = encoder.write(&data) {
                return Poll::Ready(Some(Err(AnswerFault::Compression(error))));
            }
            if let Some(piece) = encoder.piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            taken += data.len();
            if taken > AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn end(&mut self) -> Polled {
        match self.encoder.take().map(Encoder::finish) {
            Some(Ok(rest)) if !rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(rest)))),
            Some(Err(error)) => Poll::Ready(Some(Err(AnswerFault::Compression(error)))),
            _ => Poll::Ready(self.trailers.take().map(Ok)),
        }
    }
}
