//! The bodies that travel: what goes to a server, and what goes to a client. Both stream; both count bytes.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    access_log::Exchange,
    upstream::{Lease, http1},
};

/// A request's body on its way to a server.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Streaming { incoming: Incoming, counted: Rc<Cell<u64>> },
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
    Server(Option<Lease>),
    /// Made by Weir.
    Whole(Option<Bytes>),
}

// === impl RequestBody ===

impl RequestBody {
    pub fn new(incoming: Incoming, counted: &Rc<Cell<u64>>) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Streaming { incoming, counted: counted.clone() }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { incoming, counted } => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    counted.set(counted.get() + data.len() as u64);
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
    pub fn of_server(lease: Lease, exchange: Box<Exchange>) -> Self {
        let mut body = Self { source: Source::Server(Some(lease)), exchange: Some(exchange) };
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
        if let Source::Server(lease) = &mut self.source
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
        if let Source::Server(lease) = &mut self.source {
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
            Source::Server(lease) => lease.as_ref().is_none_or(|lease| lease.connection().is_at_end()),
            // Pages are small and whole: whether the client read them to the end is not known here.
            Source::Whole(_) => true,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = http1::Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, http1::Fault>>> {
        let this = &mut *self;
        match &mut this.source {
            Source::Server(lease) => {
                let Some(server) = lease else { return Poll::Ready(None) };
                let frame = ready!(server.connection_mut().poll_frame(cx));
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
            Source::Server(lease) => lease.as_ref().is_none_or(|lease| lease.connection().is_at_end()),
            Source::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Server(lease) => {
                let left = lease.as_ref().map_or(Some(0), |lease| lease.connection().remaining());
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}
