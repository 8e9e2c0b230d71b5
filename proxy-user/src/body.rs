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

use crate::{
    access_log::Exchange,
    connection::http3,
    hygiene::patience::Stall,
    upstream::{Lease, http1},
};

/// What came of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    pub bytes: Cell<u64>,
    /// The client stopped in the middle of it.
    pub stood_still: Cell<bool>,
}

/// Why a request's body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum RequestFault {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Http3(#[from] http3::BodyFault),
    #[error("it stood still for too long")]
    StoodStill,
}

/// Why an answer's body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error(transparent)]
    Server(http1::Fault),
    #[error("the server stood still for too long")]
    StoodStill,
}

/// A request's body as the client's protocol brings it.
#[derive(Debug)]
pub enum ClientBody {
    /// HTTP/1 or HTTP/2.
    Hyper(Incoming),
    Http3(Box<http3::Body>),
}

/// A request's body on its way to a server.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Streaming { incoming: ClientBody, received: Rc<Received>, stall: Stall },
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
    Server { lease: Option<Lease>, stall: Stall },
    /// Made by Weir.
    Whole(Option<Bytes>),
}

// === impl ClientBody ===

impl From<Incoming> for ClientBody {
    fn from(body: Incoming) -> Self {
        Self::Hyper(body)
    }
}

impl From<http3::Body> for ClientBody {
    fn from(body: http3::Body) -> Self {
        Self::Http3(Box::new(body))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = RequestFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestFault>>> {
        match &mut *self {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(RequestFault::Http),
            Self::Http3(body) => Pin::new(&mut **body).poll_frame(cx).map_err(RequestFault::Http3),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// `stall` watches over the client while the server waits for more.
    pub fn new(incoming: ClientBody, received: &Rc<Received>, stall: impl FnOnce() -> Stall) -> Self {
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
    type Error = RequestFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestFault>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { incoming, received, stall } => {
                let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                    if !stall.is_over(cx) {
                        return Poll::Pending;
                    }
                    received.stood_still.set(true);
                    return Poll::Ready(Some(Err(RequestFault::StoodStill)));
                };
                stall.moves();
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    received.bytes.set(received.bytes.get() + data.len() as u64);
                }
                Poll::Ready(frame)
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
    pub fn of_server(lease: Lease, stall: Stall, exchange: Box<Exchange>) -> Self {
        let mut body =
            Self { source: Source::Server { lease: Some(lease), stall }, exchange: Some(exchange) };
        if body.is_end_stream() {
            body.ended();
        }
        body
    }

    pub fn whole(bytes: Bytes, exchange: Option<Box<Exchange>>) -> Self {
        Self { source: Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), exchange }
    }

    fn count(&mut self, length: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.bytes_out += length as u64;
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
            Source::Server { lease, .. } => lease.as_ref().is_none_or(|lease| lease.connection().is_at_end()),
            // Pages are small and whole: whether the client read them to the end is not known here.
            Source::Whole(_) => true,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let this = &mut *self;
        match &mut this.source {
            Source::Server { lease, stall } => {
                let Some(server) = lease else { return Poll::Ready(None) };
                let frame = match server.connection_mut().poll_frame(cx) {
                    Poll::Ready(frame) => frame.map(|frame| frame.map_err(AnswerFault::Server)),
                    Poll::Pending if stall.is_over(cx) => Some(Err(AnswerFault::StoodStill)),
                    Poll::Pending => return Poll::Pending,
                };
                stall.moves();
                match &frame {
                    Some(Ok(frame)) => {
                        server.heard();
                        let length = frame.data_ref().map_or(0, Bytes::len);
                        this.count(length);
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
                    this.count(bytes.len());
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
            Source::Server { lease, .. } => lease.as_ref().is_none_or(|lease| lease.connection().is_at_end()),
            Source::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Server { lease, .. } => {
                let left = lease.as_ref().map_or(Some(0), |lease| lease.connection().remaining());
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}
