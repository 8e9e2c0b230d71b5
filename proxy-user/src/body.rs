//! The bodies that travel: what goes to a server, and what goes to a client. Both stream, both count bytes, and both are
//! given up when they stand still for too long.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    access_log::Exchange,
    connection::{http1 as from_client, http3},
    forwarding::trailers_towards_server,
    hygiene::{Fault, patience::Stall},
    middleware::{reason::Reason, shape::Shape},
    upstream::{Lease, http1, parcel::KeptBody},
    variants::mirror::Copied,
};

/// What came of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    pub bytes: Cell<u64>,
    /// The rule that the client broke in the middle of it.
    pub fault: Cell<Option<Fault>>,
    /// No more than so many bytes are taken.
    pub most: Cell<Option<u64>>,
    /// There were more.
    pub too_large: Cell<bool>,
    /// When its last byte was there.
    pub ended: Cell<Option<Instant>>,
}

/// Why a request's body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum RequestFault {
    #[error(transparent)]
    Http1(#[from] from_client::BodyFault),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    #[error(transparent)]
    Http3(#[from] http3::BodyFault),
    #[error("it stood still for too long")]
    StoodStill,
    #[error("it is larger than its route takes")]
    TooLarge,
    #[error("another attempt has it")]
    TakenOver,
}

/// Why an answer's body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error(transparent)]
    Server(http1::Fault),
    #[error("the server stood still for too long")]
    StoodStill,
    #[error("it took longer than its route allows")]
    TookTooLong,
    #[error("it can't be compressed: {0}")]
    Compression(std::io::Error),
}

/// A request's body as the client's protocol brings it.
#[derive(Debug)]
pub enum ClientBody {
    Http1(from_client::Body),
    Http2(Incoming),
    Http3(Box<http3::Body>),
}

/// Who hears what a server says before its answer, in the client's protocol.
#[derive(Debug)]
pub enum Listener {
    Http1(from_client::Listener),
    Http3(http3::Listener),
}

/// A request's body on its way to a server.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Streaming {
        incoming: ClientBody,
        received: Rc<Received>,
        stall: Stall,
    },
    /// All of it is here already.
    Whole {
        data: Option<Bytes>,
        /// Boxed, since a body is handed on often, and has them rarely.
        trailers: Option<Box<HeaderMap>>,
    },
    /// Streaming, and kept as it comes for whom it may have to be sent to next.
    Kept(KeptBody),
    /// One that is copied as it passes.
    Copied {
        body: Box<RequestBody>,
        copy: Rc<Copied>,
    },
}

/// A response's body on its way to the client. When it ends, or is dropped because the client left, the exchange
/// is written to the access log.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
    /// What its route does to it.
    shape: Option<Box<Shape>>,
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
        Self::Http2(body)
    }
}

impl From<from_client::Body> for ClientBody {
    fn from(body: from_client::Body) -> Self {
        Self::Http1(body)
    }
}

impl From<http3::Body> for ClientBody {
    fn from(body: http3::Body) -> Self {
        Self::Http3(Box::new(body))
    }
}

impl ClientBody {
    /// Who hears, on the client's side, what a server says before its answer. hyper's HTTP/2 has no way to pass it on.
    pub fn listener(&self) -> Option<Listener> {
        match self {
            Self::Http1(body) => body.listener().map(Listener::Http1),
            Self::Http2(_) => None,
            Self::Http3(body) => Some(Listener::Http3(body.listener())),
        }
    }
}

impl Listener {
    /// Passes an informational head on.
    pub fn hear(&self, head: &response::Parts) {
        match self {
            Self::Http1(listener) => listener.hear(head),
            Self::Http3(listener) => listener.hear(head),
        }
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
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(RequestFault::Http1),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(RequestFault::Http2),
            Self::Http3(body) => Pin::new(&mut **body).poll_frame(cx).map_err(RequestFault::Http3),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

// === impl Received ===

impl Received {
    /// There is no more to come; noted once.
    fn over(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(Instant::now()));
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

    pub fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let trailers = trailers.map(Box::new);
        Self::Whole { data: Some(data).filter(|data| !data.is_empty()), trailers }
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
            Self::Kept(body) => body.poll(cx),
            Self::Copied { body, copy } => {
                let frame = std::task::ready!(Pin::new(&mut **body).poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    copy.take(data);
                }
                Poll::Ready(frame)
            }
            Self::Whole { data, trailers } => {
                let trailers = || trailers.take().map(|trailers| Frame::trailers(*trailers));
                let next = data.take().map(Frame::data).or_else(trailers);
                Poll::Ready(next.map(Ok))
            }
            Self::Streaming { incoming, received, stall } => {
                let Poll::Ready(mut frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
                    if !stall.is_over(cx) {
                        return Poll::Pending;
                    }
                    received.fault.set(Some(Fault::BodyTimeout));
                    return Poll::Ready(Some(Err(RequestFault::StoodStill)));
                };
                stall.moves();
                if let Some(Err(RequestFault::Http1(from_client::BodyFault::Broken(fault)))) = &frame {
                    received.fault.set(Some(*fault));
                }
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    trailers_towards_server(trailers);
                }
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    let bytes = received.bytes.get() + data.len() as u64;
                    received.bytes.set(bytes);
                    if received.most.get().is_some_and(|most| bytes > most) {
                        received.too_large.set(true);
                        return Poll::Ready(Some(Err(RequestFault::TooLarge)));
                    }
                }
                if frame.is_none() || incoming.is_end_stream() {
                    received.over();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Copied { body, .. } => body.is_end_stream(),
            Self::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Self::Streaming { incoming, .. } => incoming.is_end_stream(),
            Self::Kept(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Kept(body) => body.size_hint(),
            Self::Copied { body, .. } => body.size_hint(),
            // Trailers have their place behind chunks, not behind a length.
            Self::Whole { trailers: Some(_), .. } => SizeHint::default(),
            Self::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Self::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// `stall` watches over the server while the client waits for more.
    pub fn of_server(lease: Lease, stall: Stall, exchange: Box<Exchange>) -> Self {
        let source = Source::Server { lease: Some(lease), stall };
        let mut body = Self { source, exchange: Some(exchange), shape: None };
        if body.is_end_stream() {
            body.ended();
        }
        body
    }

    pub fn whole(bytes: Bytes, exchange: Option<Box<Exchange>>) -> Self {
        Self { source: Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), exchange, shape: None }
    }

    /// The same with another shape; what has no body keeps its own.
    pub fn shaped(mut self, shape: Option<Shape>) -> Self {
        if !self.is_end_stream() {
            self.shape = shape.map(Box::new);
        }
        self
    }

    /// The rule that the client broke, if that is what this answers.
    pub fn refuses(&self) -> Option<Fault> {
        self.exchange.as_ref()?.flags.refused
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
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
    }

    /// A body that is shaped broke off: its server did, or its time was over.
    fn gave_up(&mut self, fault: &AnswerFault) {
        if let Source::Server { lease, .. } = &mut self.source {
            *lease = None;
        }
        if let Some(exchange) = &mut self.exchange {
            match fault {
                AnswerFault::TookTooLong => exchange.flags.halted = Some(Reason::TimedOut),
                _ => exchange.flags.server_broke_off = true,
            }
        }
        self.finish();
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
            let over = match &self.shape {
                Some(shape) if shape.compresses() => shape.is_over(),
                _ => self.source_is_at_end(),
            };
            if !over {
                exchange.broken_off();
            }
            exchange.finish();
        }
    }
}

impl ResponseBody {
    fn source_is_at_end(&self) -> bool {
        match &self.source {
            Source::Server { lease, .. } => lease.as_ref().is_none_or(|lease| lease.carrier.is_at_end()),
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
        let Some(mut shape) = self.shape.take() else { return self.poll_source(cx) };
        // The exchange is over when its last shaped byte is on its way, and that is not the source's to tell.
        let exchange = self.exchange.take();
        let frame = shape.poll(cx, |cx| self.poll_source(cx));
        (self.exchange, self.shape) = (exchange, Some(shape));
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.count(frame.data_ref().map_or(0, Bytes::len));
                if self.is_end_stream() {
                    self.finish();
                }
            }
            Poll::Ready(Some(Err(fault))) => self.gave_up(fault),
            Poll::Ready(None) => self.finish(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.shape {
            Some(shape) if shape.compresses() => shape.is_over(),
            _ => self.source_is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.shape, &self.source) {
            (Some(shape), _) if shape.compresses() => SizeHint::default(),
            (_, Source::Server { lease, .. }) => {
                let left = lease.as_ref().map_or(Some(0), |lease| lease.carrier.remaining());
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            (_, Source::Whole(bytes)) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl ResponseBody {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let this = self;
        match &mut this.source {
            Source::Server { lease, stall } => {
                let Some(server) = lease else { return Poll::Ready(None) };
                let frame = match server.carrier.poll_frame(cx) {
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
                        if this.source_is_over() {
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

    fn source_is_over(&self) -> bool {
        match &self.source {
            Source::Server { lease, .. } => lease.as_ref().is_none_or(|lease| lease.carrier.is_at_end()),
            Source::Whole(bytes) => bytes.is_none(),
        }
    }
}
