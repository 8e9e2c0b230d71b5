//! A connection that speaks HTTP/2: its limits, and what becomes of streams and connections that stand still.

mod line;
mod resets;

use std::{
    cell::Cell,
    error::Error as _,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{line::Line, resets::Resets};
use crate::{
    hygiene::{Fault, patience::Stall},
    request::{self, Caller},
    worker::Worker,
};

/// A client that says nothing is asked whether it is there.
const PING: Duration = Duration::from_secs(60);

/// Streams that a client opened and reset before they were looked at. A browser that is quick has a few; an attacker
/// thousands a second (CVE-2023-44487). Those that were looked at have a budget: [`Resets`].
const RESETS_PENDING: usize = 20;

/// Streams that had to be reset for the client's faults, before it is taken for a hostile one.
const FAULTY_STREAMS: usize = 256;

/// Buffered for a stream whose client does not take it.
const SEND_BUFFER: usize = 256 * 1024;

/// Serves streams until the connection ends.
pub async fn speak<S>(stream: S, caller: Rc<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &caller.entrypoint.limits;
    let (streams, resets) = (Streams::new(&caller), Resets::of(&caller));
    let (asked, watching) = (caller.clone(), resets.clone());
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(FAULTY_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .serve_connection(
            TokioIo::new(Line::new(stream, resets.clone())),
            service_fn(move |request| watching.watch(request::answer(asked.clone(), request))),
        );

    let mut connection = pin!(connection);
    let mut idle = pin!(streams.none_for(&caller.worker, limits.keep_alive));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = idle.as_mut() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = caller.worker.host_drains_after(&caller.requests) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = caller.has_its_page() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = caller.worker.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    resets.are_over();
    if let Err(error) = ended {
        let reason =
            error.source().and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
        if reason == Some(h2::Reason::ENHANCE_YOUR_CALM) {
            caller.entrypoint.counters.faults.count(Fault::Http2Flood);
        }
        // Clients leave in many ways, and none of them is our trouble.
        tracing::debug!(%error, "connection ended");
    }
}

/// How long a stream may stand still: an answer that is awaited for long does so too.
fn longest_silence(caller: &Caller) -> Duration {
    let services = &caller.worker.snapshot().services;
    let first_byte = services.iter().map(|service| service.timeouts.first_byte).max().unwrap_or_default();
    caller.entrypoint.limits.stream_idle.max(first_byte)
}

/// Runs a connection's streams on its worker's own thread, and counts them.
#[derive(Debug, Clone)]
struct Streams {
    caller: Rc<Caller>,
    silence: Duration,
    running: Rc<Cell<usize>>,
    /// A stream is at work: what it spawns carries a tunnel, which looks after its own silence.
    within: Rc<Cell<bool>>,
}

pin_project! {
    /// A stream: one request and its answer. Let go when it stands still for too long, because its client opens no window.
    struct Stream<F> {
        #[pin]
        future: Option<F>,
        stall: Stall,
        caller: Rc<Caller>,
        within: Rc<Cell<bool>>,
        counted: Counted,
    }
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Streams {
    fn new(caller: &Rc<Caller>) -> Self {
        let silence = longest_silence(caller);
        Self { caller: caller.clone(), silence, running: Rc::default(), within: Rc::default() }
    }

    /// Resolves when there has been none for so long.
    fn none_for(&self, worker: &Rc<Worker>, limit: Duration) -> impl Future<Output = ()> + use<> {
        let mut stall = Stall::new(worker.patience.clone(), limit);
        let running = self.running.clone();
        // Polled whenever the connection is: a stream's last frame is one of these times.
        poll_fn(move |cx| {
            if running.get() > 0 {
                stall.moves();
                return Poll::Pending;
            }
            if stall.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.running.set(self.running.get() + 1);
        let silence = if self.within.get() { Duration::MAX } else { self.silence };
        tokio::task::spawn_local(Stream {
            future: Some(future),
            stall: Stall::new(self.caller.worker.patience.clone(), silence),
            caller: self.caller.clone(),
            within: self.within.clone(),
            counted: Counted(self.running.clone()),
        });
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        this.within.set(true);
        let polled = future.poll(cx);
        this.within.set(false);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        // Woken for nothing by the ticker, it is over; woken by anything else, its time begins anew.
        if this.stall.is_over(cx) {
            this.caller.entrypoint.counters.faults.count(Fault::AnswerTimeout);
            this.caller.link.let_go(Fault::AnswerTimeout, || this.future.set(None));
            return Poll::Ready(());
        }
        this.stall.moves();
        let _ = this.stall.is_over(cx);
        Poll::Pending
    }
}
