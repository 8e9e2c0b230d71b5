//! A mirror: copies of requests go to another service, whose answers are read and thrown away.
//!
//! A copy never stands in the way of what it is copied from. It is a task of its own, it gets its body from what has passed by
//! on its way to the real service, and where too many are under way it is dropped. So the memory that it takes is bounded
//! by `at_once` × `body_limit`.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header, request};
use http_body::Body as _;
use tokio::time::timeout_at;

use super::{Asking, Counting, deliver, figures::Figures, through};
use crate::{
    access_log::Exchange,
    body::RequestBody,
    middleware::concurrency::{Permit, Room},
    proxy_protocol::Ends,
    service::Service,
    upstream::{attempt::Answer, deliver::Undelivered},
    worker::Worker,
};

/// By which a server can tell a copy.
const X_WEIR_MIRRORED: HeaderName = HeaderName::from_static("x-weir-mirrored");

#[derive(Debug)]
pub struct Mirror {
    pub service: Arc<Service>,
    pub to: Arc<Service>,
    /// In hundredths of a percent.
    pub share: u32,
    pub body_limit: u64,
    pub timeout: Duration,
    pub room: Room,
    pub counters: Arc<Counters>,
}

/// They outlive reloads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Of copies that were sent.
    pub figures: Figures,
    /// Copies that were not sent, since too many were under way or their request was not whole.
    pub dropped: AtomicU64,
    /// Requests whose body was too long to be copied, or of unknown length.
    pub too_long: AtomicU64,
}

/// A body that is copied as it passes.
#[derive(Debug)]
pub struct Copied {
    data: RefCell<BytesMut>,
    expected: u64,
    spoilt: Cell<bool>,
}

/// A copy that waits for its body.
struct Waiting {
    copy: Rc<Copied>,
    counters: Arc<Counters>,
    permit: Option<Permit>,
}

/// A copy that is ready to go.
struct Departure {
    worker: Rc<Worker>,
    ends: Ends,
    to: Arc<Service>,
    head: request::Parts,
    body: Bytes,
    exchange: Exchange,
    counters: Arc<Counters>,
    within: Duration,
    permit: Permit,
}

impl Mirror {
    pub(super) async fn deliver<'s>(
        &'s self,
        asking: Asking<'_>,
        asked: &mut &'s Arc<Service>,
        body: RequestBody,
        unspent: &mut Option<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Undelivered> {
        let (body, waiting) = self.copy(asking, body, exchange);
        let outcome = through(asking, &self.service, asked, body, unspent, exchange).await;
        if let Some(mut waiting) = waiting
            && let Some(data) = waiting.copy.whole()
            && let Some(permit) = waiting.permit.take()
        {
            self.send(asking, data, exchange, permit);
        }
        outcome
    }

    /// Sends a copy at once where the body is here already; otherwise has it copied on its way.
    fn copy(
        &self,
        asking: Asking<'_>,
        body: RequestBody,
        exchange: &Exchange,
    ) -> (RequestBody, Option<Waiting>) {
        // What becomes another protocol is a conversation, and half of one is no use to anybody.
        if fastrand::u32(..10_000) >= self.share || asking.head.headers.contains_key(header::UPGRADE) {
            return (body, None);
        }
        let Some(length) = body.size_hint().exact().filter(|length| *length <= self.body_limit) else {
            self.counters.too_long.fetch_add(1, Ordering::Relaxed);
            return (body, None);
        };
        let Some(permit) = self.room.enter() else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return (body, None);
        };
        let here = match &body {
            RequestBody::Empty => Some(Bytes::new()),
            RequestBody::Whole { data, trailers: None } => Some(data.clone().unwrap_or_default()),
            _ => None,
        };
        if let Some(data) = here {
            self.send(asking, data, exchange, permit);
            return (body, None);
        }
        let copy = Rc::new(Copied { data: RefCell::default(), expected: length, spoilt: Cell::new(false) });
        let body = RequestBody::Copied { body: Box::new(body), copy: copy.clone() };
        let waiting = Waiting { copy, counters: self.counters.clone(), permit: Some(permit) };
        (body, Some(waiting))
    }

    fn send(&self, asking: Asking<'_>, body: Bytes, exchange: &Exchange, permit: Permit) {
        let mut head = asking.head.clone();
        head.headers.insert(X_WEIR_MIRRORED, HeaderValue::from_static("1"));
        let departure = Departure {
            worker: asking.means.worker.clone(),
            ends: asking.means.ends,
            to: self.to.clone(),
            head,
            body,
            exchange: exchange.unlogged(),
            counters: self.counters.clone(),
            within: self.timeout,
            permit,
        };
        tokio::task::spawn_local(departure.go());
    }
}

impl Departure {
    async fn go(self) {
        let Self { worker, ends, to, head, body, mut exchange, counters, within, permit } = self;
        let by = Instant::now() + within;
        let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::whole(body, None) };
        let mut asked = &to;
        let counting = Counting::begin(&counters.figures, Some(by));
        let means = worker.means(ends);
        let outcome = deliver(means, Some(by), &mut asked, &head, body, &mut exchange).await;
        counting.end(&outcome);
        if let Ok(mut answer) = outcome {
            let read = async {
                while let Some(frame) = poll_fn(|cx| answer.lease.carrier.poll_frame(cx)).await {
                    if frame.is_err() {
                        return false;
                    }
                }
                true
            };
            // Only a connection whose answer was read to its end can be used again.
            if timeout_at(by.into(), read).await == Ok(true) {
                answer.lease.give_back();
            }
        }
        drop(permit);
    }
}

impl Copied {
    /// A piece of the body passes.
    pub fn take(&self, piece: &[u8]) {
        let mut data = self.data.borrow_mut();
        // More than was told is no body of an honest client's.
        if (data.len() + piece.len()) as u64 > self.expected {
            self.spoilt.set(true);
            data.clear();
        }
        if !self.spoilt.get() {
            data.extend_from_slice(piece);
        }
    }

    /// All of it, if all of it has passed.
    fn whole(&self) -> Option<Bytes> {
        let mut data = self.data.borrow_mut();
        let whole = !self.spoilt.get() && data.len() as u64 == self.expected;
        whole.then(|| data.split().freeze())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_body_that_passed_whole_is_a_copy() {
        let copied = |expected| Copied { data: RefCell::default(), expected, spoilt: Cell::new(false) };
        let copy = copied(6);
        copy.take(b"abc");
        assert_eq!(copy.whole(), None);
        copy.take(b"def");
        assert_eq!(copy.whole().as_deref(), Some(&b"abcdef"[..]));

        let too_much = copied(2);
        too_much.take(b"abc");
        too_much.take(b"de");
        assert_eq!(too_much.whole(), None);
    }
}
