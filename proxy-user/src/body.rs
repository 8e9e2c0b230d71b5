//! The bodies that travel: what goes to a server, and what goes to a client. Both stream, both count bytes, and both are
//! given up when they stand still for too long.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{access_log::Exchange, clock::Moment, hygiene::patience::Stall, upstream::Lease};

/// What came of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    pub bytes: Cell<u64>,
    /// The client stopped in the middle of it.
    pub stood_still: Cell<bool>,
}

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("it stood still for too long")]
    StoodStill,
}

/// A request's body on its way to a server.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Streaming { incoming: Incoming, received: Rc<Received>, stall: Stall },
}

/// A response's body on its way to the client. When it ends, or is dropped because the client left, the exchange
/// is written to the access log.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Source {
    /// From a server: the lease gives its connection back to the pool at a clean end, and closes it otherwise.
    Server { incoming: Incoming, lease: Option<Lease>, stall: Stall },
    /// Made by Weir.
    Whole(Option<Bytes>),
}

// === impl RequestBody ===

impl RequestBody {
    /// `stall` watches over the client while the server waits for more.
    pub fn new(incoming: Incoming, received: &Rc<Received>, stall: impl FnOnce() -> Stall) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Streaming { incoming, received: received.clone(), stall: stall() }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { incoming, received, stall } => {
                let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                    if !stall.is_over(cx) {
                        return Poll::Pending;
                    }
                    received.stood_still.set(true);
                    return Poll::Ready(Some(Err(BodyFault::StoodStill)));
                };
                stall.moves();
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    received.bytes.set(received.bytes.get() + data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyFault::Http)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// `stall` watches over the server while the client waits for more.
    pub fn of_server(incoming: Incoming, lease: Lease, stall: Stall, exchange: Box<Exchange>) -> Self {
        let source = Source::Server { incoming, lease: Some(lease), stall };
        let mut body = Self { source, exchange: Some(exchange) };
        if body.is_end_stream() {
            body.ended();
        }
        body
    }

    pub fn whole(bytes: Bytes, exchange: Option<Box<Exchange>>) -> Self {
        Self { source: Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), exchange }
    }

    fn count(&mut self, data: &Bytes) {
        if let Some(exchange) = &mut self.exchange {
            exchange.bytes_out += data.len() as u64;
        }
    }

    /// The body came to its proper end.
    fn ended(&mut self) {
        if let Source::Server { lease, .. } = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
    }

    /// The server broke off in the middle.
    fn broke(&mut self) {
        if let Source::Server { lease, .. } = &mut self.source {
            *lease = None;
        }
        if let Some(mut exchange) = self.exchange.take() {
            exchange.flags.server_broke_off = true;
            exchange.finish();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            // A response without a body (HEAD, 204, 304) is dropped unread, and that is its proper end.
            if !self.source_is_at_end() {
                exchange.flags.client_left = true;
            }
            exchange.finish();
        }
    }
}

impl ResponseBody {
    fn source_is_at_end(&self) -> bool {
        match &self.source {
            Source::Server { incoming, .. } => incoming.is_end_stream(),
            // Pages are small and whole: whether the client read them to the end is not known here.
            Source::Whole(_) => true,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        match &mut this.source {
            Source::Server { incoming, lease, stall } => {
                let frame = match Pin::new(incoming).poll_frame(cx) {
                    Poll::Ready(frame) => frame.map(|frame| frame.map_err(BodyFault::Http)),
                    Poll::Pending if stall.is_over(cx) => Some(Err(BodyFault::StoodStill)),
                    Poll::Pending => return Poll::Pending,
                };
                stall.moves();
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(lease) = lease {
                            lease.health().heard(Moment::now());
                        }
                        if let Some(data) = frame.data_ref() {
                            let data = data.clone();
                            this.count(&data);
                        }
                        if this.is_end_stream() {
                            this.ended();
                        }
                    }
                    Some(Err(_)) => this.broke(),
                    None => this.ended(),
                }
                Poll::Ready(frame)
            }
            Source::Whole(bytes) => match bytes.take() {
                Some(bytes) => {
                    this.count(&bytes);
                    this.ended();
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                None => {
                    this.ended();
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Server { incoming, .. } => incoming.is_end_stream(),
            Source::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Server { incoming, .. } => incoming.size_hint(),
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}
