//! A connection that speaks HTTP/1: its life, request after request, and its end.
//!
//! It is one task, and none for a request: while a request is answered, that task drives the answer, the client's body
//! as far as the server wants it, and looks whether the client is still there. What is large lives only as long as a
//! request does ([`exchange`]); between two, nothing is held but the stream.

mod answer;
mod body;
mod sending;
mod stream;
mod wire;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Method, Request, Version, request::Parts};

use self::{
    answer::Manner,
    sending::{Broke, Sending},
    wire::{Next, Wire},
};
pub use self::{
    body::{Body, BodyFault, Listener},
    stream::Stream,
    wire::Switch,
};
use crate::{
    hygiene::{
        Fault,
        http1::{Asked, HeadLimits, Wishes},
        patience::Stall,
    },
    request::{self, Caller},
};

/// Behind the last answer, what a client still sends is thrown away for so long: closed with unread bytes, the kernel
/// would reset the connection, and the client might never read its answer.
const LINGER: Duration = Duration::from_secs(5);

/// So much of a body that nobody wants is read to get at the next request. Beyond it, a new connection costs less.
const SKIPPED: u64 = 256 * 1024;

/// What becomes of a connection behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    NextRequest,
    /// Its stream speaks another protocol now.
    Switch,
    /// It ends, and its client may not know yet.
    Close,
    /// There is nobody to say more to.
    Drop,
    /// Nobody shall take what was sent for all there is.
    Reset,
}

/// Serves requests, one after the other, until the connection ends or switches.
pub async fn speak(stream: Stream, caller: Rc<Caller>) {
    let limits = &caller.entrypoint.limits;
    let wire = Wire::new(stream, HeadLimits { fields: limits.fields, size: limits.head });
    let mut stall = Stall::new(caller.worker.patience.clone(), limits.head_time);
    let after = {
        let mut closing = pin!(caller.worker.closing());
        let mut listens = false;
        loop {
            let next = next(&wire, &caller, &mut stall, closing.as_mut(), &mut listens).await;
            let after = match next {
                Next::Request(asked) => Box::pin(exchange(&wire, &caller, asked, None, &mut stall)).await,
                Next::Refused(parts, fault) => {
                    let asked = Asked { parts, wishes: Wishes { close: true, ..Wishes::default() } };
                    Box::pin(exchange(&wire, &caller, asked, Some(fault), &mut stall)).await
                }
                Next::End => After::Close,
            };
            if after != After::NextRequest {
                break after;
            }
            stall.begins(limits.keep_alive);
        }
    };
    // Whether granted or not: nobody else would let go of it.
    let switch = wire.take_switch();
    match (after, switch) {
        (After::Switch, Some(crossing)) => {
            drop(stall);
            match Wire::switched(wire) {
                Some(client) => Box::pin(crossing.carry(client, &caller)).await,
                // A part of its request is still on its way to the server: what follows can't be told from it.
                None => crossing.end(),
            }
        }
        (After::Reset, _) => wire.reset(),
        (After::Drop, _) => {}
        (After::NextRequest | After::Close | After::Switch, _) => {
            close(&wire, &mut stall, limits.body_idle).await;
        }
    }
}

/// The next request, or the end: because the client has none, takes too long, or the worker drains.
async fn next(
    wire: &Wire,
    caller: &Caller,
    stall: &mut Stall,
    mut closing: Pin<&mut impl Future<Output = ()>>,
    listens: &mut bool,
) -> Next {
    let mut in_head = false;
    poll_fn(|cx| {
        if let Poll::Ready(next) = wire.poll_next(cx) {
            stall.moves();
            return Poll::Ready(next);
        }
        if wire.is_idle() {
            if caller.worker.is_closing() {
                return Poll::Ready(Next::End);
            }
            wire.rest();
            // Once is enough: it wakes the task, which stays the same.
            if !std::mem::replace(listens, true) && closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::End);
            }
        } else if !in_head {
            in_head = true;
            stall.begins(caller.entrypoint.limits.head_time);
        }
        if !stall.is_over(cx) {
            return Poll::Pending;
        }
        // Between two requests there is nothing to say: it ends as if the client had hung up.
        Poll::Ready(if in_head { Next::Refused(wire.unfinished(), Fault::HeadTimeout) } else { Next::End })
    })
    .await
}

/// One request and its answer.
async fn exchange(
    wire: &Rc<Wire>,
    caller: &Rc<Caller>,
    asked: Asked,
    refused: Option<Fault>,
    stall: &mut Stall,
) -> After {
    let Asked { mut parts, wishes } = asked;
    let mut manner = manner(&parts, wishes);
    if let Some(fault) = refused {
        parts.extensions.insert(fault);
    }
    // 1. Whoever answers drives the body, too. Meanwhile the client may leave.
    let response = {
        let request = Request::from_parts(parts, Body::of(wire));
        let mut answering = pin!(request::answer(caller.clone(), request));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Pending => wire.poll_left(cx).map(|()| None),
        });
        let Some(response) = answered.await else { return After::Drop };
        response
    };

    // 2. Is it the last one?
    let told = response.body().refuses();
    let skips = !wire.is_left_over() || wire.may_skip(SKIPPED);
    let ends = caller.worker.is_closing() || caller.worker.host_drains() || caller.outage.is_some();
    manner.keep_alive &= refused.is_none() && skips && !ends;

    // 3. The answer goes out.
    let limits = &caller.entrypoint.limits;
    stall.begins(limits.body_idle);
    let mut sending = Sending::new(wire, response, manner);
    let sent = poll_fn(|cx| sending.poll(wire, stall, cx)).await;
    if let Some(fault) = wire.fault().filter(|fault| told != Some(*fault)) {
        caller.entrypoint.counters.faults.count(fault);
    }
    match sent {
        Ok(()) => {}
        Err(Broke::Server) if sending.ends_with_connection() => return After::Reset,
        Err(broke) => {
            if let Some(fault) = broke.fault() {
                caller.entrypoint.counters.faults.count(fault);
                caller.link.let_go(fault, || drop(sending));
            }
            return After::Drop;
        }
    }
    if wire.switches() {
        return After::Switch;
    }
    if !sending.keeps_alive() {
        return After::Close;
    }

    // 4. What nobody wanted of the body stands before the next request.
    if wire.is_in_body() {
        wire.takes_body_back();
        let mut left = SKIPPED;
        let skipped = poll_fn(|cx| match wire.poll_skip(&mut left, cx) {
            Poll::Ready(skipped) => Poll::Ready(skipped.is_ok()),
            Poll::Pending if stall.is_over(cx) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if !wire.may_skip(SKIPPED) || !skipped.await {
            return After::Close;
        }
    }
    After::NextRequest
}

fn manner(parts: &Parts, wishes: Wishes) -> Manner {
    let http_11 = parts.version == Version::HTTP_11;
    Manner {
        http_11,
        is_head: parts.method == Method::HEAD,
        trailers: wishes.trailers,
        keep_alive: !wishes.close && (http_11 || wishes.keep_alive),
    }
}

/// Says that it was all, and waits for the client to have read it: it may still be sending.
async fn close(wire: &Wire, stall: &mut Stall, patience: Duration) {
    stall.begins(patience);
    let closed = poll_fn(|cx| match wire.poll_shutdown(cx) {
        Poll::Ready(closed) => Poll::Ready(closed.is_ok()),
        Poll::Pending if stall.is_over(cx) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    if !closed.await || !wire.may_be_sent_more() {
        return;
    }
    stall.begins(LINGER);
    poll_fn(|cx| match wire.poll_throw_away(cx) {
        Poll::Pending if !stall.is_over(cx) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}
