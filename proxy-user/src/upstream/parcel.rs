//! The body of a request, for as many attempts as it takes.
//!
//! What has been sent can only be sent again if it was kept. A body is copied as it comes in and goes out, up to the limit of
//! its service and of its worker ([`Memory`]); one that grows beyond is forgotten and belongs to the attempt that has it.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::body::{RequestBody, RequestFault};

/// So much of requests' bodies a worker keeps at a time, in bytes. While it is full, further ones are not kept.
const MOST_KEPT: usize = 64 << 20;

/// What a worker keeps of bodies.
#[derive(Debug, Clone, Default)]
pub struct Memory(Rc<Cell<usize>>);

/// A request's body, until an answer is there.
#[derive(Debug)]
pub enum Parcel {
    Empty,
    /// All of it has been here from the start.
    Whole(Bytes, Option<Box<HeaderMap>>),
    Kept(Rc<Kept>),
    /// It streams past: `None` once it was given away.
    Once(Option<RequestBody>),
}

/// A body that is kept as it comes.
#[derive(Debug)]
pub struct Kept(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    source: RequestBody,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The source has come to its end.
    over: bool,
    /// `data` is all that has come from the source.
    keeping: bool,
    /// An answer is there: nobody will ask for it again.
    settled: bool,
    most: usize,
    memory: Memory,
    /// What `data` takes of it.
    held: usize,
    /// The attempt that may take more from the source.
    reader: u32,
}

/// What one attempt reads: what was kept, then the rest from the client.
#[derive(Debug)]
pub struct KeptBody {
    kept: Rc<Kept>,
    reader: u32,
    read: usize,
    over: bool,
}

// === impl Parcel ===

impl Parcel {
    /// `most`: so many bytes may be kept, if there is a use for it.
    pub fn new(body: RequestBody, most: Option<usize>, memory: &Memory) -> Self {
        let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        match (body, most) {
            (RequestBody::Empty, _) => Self::Empty,
            (RequestBody::Whole { data, trailers }, _) => Self::Whole(data.unwrap_or_default(), trailers),
            (source, Some(most)) if told <= most && most > 0 => {
                Self::Kept(Rc::new(Kept(RefCell::new(Inner {
                    source,
                    data: Vec::new(),
                    trailers: None,
                    over: false,
                    keeping: true,
                    settled: false,
                    most,
                    memory: memory.clone(),
                    held: 0,
                    reader: 0,
                }))))
            }
            (source, _) => Self::Once(Some(source)),
        }
    }

    /// The body for an attempt, from its begin. `None`: it can't be had once more.
    pub fn body(&mut self) -> Option<RequestBody> {
        match self {
            Self::Empty => Some(RequestBody::Empty),
            Self::Whole(data, trailers) => {
                let data = Some(data.clone()).filter(|data| !data.is_empty());
                Some(RequestBody::Whole { data, trailers: trailers.clone() })
            }
            Self::Kept(kept) => {
                let mut inner = kept.0.borrow_mut();
                if !inner.keeping {
                    return None;
                }
                // Whoever had it before may still be around for a moment, and must not take anything away.
                inner.reader += 1;
                Some(RequestBody::Kept(KeptBody {
                    kept: kept.clone(),
                    reader: inner.reader,
                    read: 0,
                    over: false,
                }))
            }
            Self::Once(body) => body.take(),
        }
    }

    /// An attempt didn't touch it.
    pub fn give_back(&mut self, body: RequestBody) {
        if let Self::Once(none) = self {
            *none = Some(body);
        }
    }

    /// Whether [`Self::body`] has it for a further attempt.
    pub fn can_be_sent_again(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(..) => true,
            Self::Kept(kept) => kept.0.borrow().keeping,
            Self::Once(body) => body.is_some(),
        }
    }

    /// The same, whatever is still to come of it.
    pub fn can_surely_be_sent_again(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(..) => true,
            Self::Kept(kept) => {
                let inner = kept.0.borrow();
                inner.keeping && (inner.over || inner.source.size_hint().exact().is_some())
            }
            Self::Once(_) => false,
        }
    }

    /// Whether two attempts at a time can have it: nothing of it is to come any more.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(..) => true,
            Self::Kept(kept) => {
                let inner = kept.0.borrow();
                inner.over && inner.keeping
            }
            Self::Once(_) => false,
        }
    }
}

impl Drop for Parcel {
    /// There will be no further attempt; the last one may still be reading.
    fn drop(&mut self) {
        if let Self::Kept(kept) = self {
            kept.0.borrow_mut().settled = true;
        }
    }
}

// === impl KeptBody ===

impl KeptBody {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestFault>>> {
        let inner = &mut *self.kept.0.borrow_mut();
        if self.read < inner.data.len() {
            let data = Bytes::copy_from_slice(&inner.data[self.read..]);
            self.read = inner.data.len();
            inner.forget_if_settled();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if inner.over {
            let trailers = if self.over { None } else { inner.trailers.clone() };
            self.over = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if self.reader != inner.reader {
            return Poll::Ready(Some(Err(RequestFault::TakenOver)));
        }
        let frame = match ready!(Pin::new(&mut inner.source).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(fault)) => {
                // What is left of it nobody will get.
                inner.forget();
                return Poll::Ready(Some(Err(fault)));
            }
            None => {
                (inner.over, self.over) = (true, true);
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            inner.keep(data);
            self.read = inner.data.len();
        } else if let Some(trailers) = frame.trailers_ref()
            && inner.keeping
        {
            inner.trailers = Some(trailers.clone());
            (inner.over, self.over) = (true, true);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    pub fn is_over(&self) -> bool {
        let inner = self.kept.0.borrow();
        let read = self.read >= inner.data.len();
        read && (self.over || (inner.trailers.is_none() && (inner.over || inner.source.is_end_stream())))
    }

    pub fn size_hint(&self) -> SizeHint {
        let inner = self.kept.0.borrow();
        let unread = inner.data.len().saturating_sub(self.read) as u64;
        match inner.source.size_hint().exact() {
            _ if inner.over && inner.trailers.is_none() => SizeHint::with_exact(unread),
            // Trailers have their place behind chunks, not behind a length.
            Some(left) if inner.trailers.is_none() => SizeHint::with_exact(unread + left),
            _ => SizeHint::default(),
        }
    }
}

// === impl Inner ===

impl Inner {
    fn keep(&mut self, data: &[u8]) {
        if !self.keeping {
            return;
        }
        if self.settled || self.data.len() + data.len() > self.most {
            return self.forget();
        }
        self.data.reserve(data.len());
        // It grows by leaps: the room counts, not what is in it.
        let grown = self.data.capacity() - self.held;
        if !self.memory.take(grown) {
            return self.forget();
        }
        self.held += grown;
        self.data.extend_from_slice(data);
    }

    fn forget_if_settled(&mut self) {
        if self.settled && !self.over {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.keeping = false;
        self.memory.give(std::mem::take(&mut self.held));
        self.data = Vec::new();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.memory.give(self.held);
    }
}

// === impl Memory ===

impl Memory {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.get() + bytes;
        if taken > MOST_KEPT {
            return false;
        }
        self.0.set(taken);
        true
    }

    fn give(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

#[cfg(test)]
mod tests;
