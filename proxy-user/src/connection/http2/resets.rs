//! Streams that a client resets after its request was begun. The library counts those that nobody had looked at yet; these
//! have cost a server something.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    body::{AnswerFault, ResponseBody},
    clock::Moment,
    hygiene::{Fault, given_up::Budget},
    identity::{Trust, TrustedSource},
    request::Caller,
};

/// What a connection's streams tell of those that were reset.
#[derive(Debug)]
pub struct Resets {
    caller: Rc<Caller>,
    /// `None`: peers that bring the requests of many are not to lose them for the faults of some.
    budget: Option<Budget>,
    too_many: Cell<bool>,
    connection: RefCell<Option<Waker>>,
}

pin_project! {
    /// A request at work, or the body of its answer: dropped before its end, it was given up.
    pub struct Watched<T> {
        #[pin]
        inner: T,
        watch: Watch,
    }
}

/// Counts when it is dropped, unless it was told of an end.
struct Watch(Option<Rc<Resets>>);

// === impl Resets ===

impl Resets {
    pub fn of(caller: &Rc<Caller>) -> Rc<Self> {
        let of_many =
            TrustedSource::trust(caller.entrypoint.client_ip.as_ref(), caller.peer.addr) == Trust::Believed;
        let budget = (!of_many).then(|| Budget::of_streams(caller.entrypoint.limits.streams));
        Rc::new(Self {
            caller: caller.clone(),
            budget,
            too_many: Cell::default(),
            connection: RefCell::default(),
        })
    }

    /// Watches over a request that is being answered.
    pub fn watch<T>(self: &Rc<Self>, answering: T) -> Watched<T> {
        Watched { inner: answering, watch: Watch(self.budget.is_some().then(|| self.clone())) }
    }

    /// Whether the connection is to end; otherwise it is woken when it is.
    pub fn are_too_many(&self, cx: &Context<'_>) -> bool {
        let mut connection = self.connection.borrow_mut();
        if !connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *connection = Some(cx.waker().clone());
        }
        self.too_many.get()
    }

    /// The connection is over: what ends now ends with it.
    pub fn are_over(&self) {
        self.too_many.set(true);
    }

    fn one_more(&self) {
        let Some(budget) = &self.budget else { return };
        // Whom Weir lets go didn't leave.
        if self.too_many.get() || self.caller.link.why_let_go().is_some() {
            return;
        }
        if budget.is_spent_by_one_more(Moment::recent()) {
            self.too_many.set(true);
            self.caller.entrypoint.counters.faults.count(Fault::Http2Flood);
            if let Some(connection) = self.connection.take() {
                connection.wake();
            }
        }
    }
}

// === impl Watched ===

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(resets) = self.0.take() {
            resets.one_more();
        }
    }
}

impl<F, E> Future for Watched<F>
where
    F: Future<Output = Result<Response<ResponseBody>, E>>,
{
    type Output = Result<Response<Watched<ResponseBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.inner.poll(cx));
        let mut watch = Watch(this.watch.0.take());
        Poll::Ready(answered.map(|response| {
            response.map(|body| {
                if body.is_end_stream() {
                    watch.0 = None;
                }
                Watched { inner: body, watch }
            })
        }))
    }
}

impl Body for Watched<ResponseBody> {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
            this.watch.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
