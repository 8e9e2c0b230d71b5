//! Between a client's stream and hyper: lets through what [`http1`](super::http1) passes, holds back what is not whole,
//! and keeps the time of a connection.
//!
//! A head that is refused gives way to an empty request, so that hyper answers those before it first; [`Link`] tells
//! the service that it is no request, but a fault to answer. Then the rest of the stream is thrown away.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock::Moment,
    config::model::Limits,
    hygiene::{
        Fault,
        http1::{HeadLimits, Phase, Scanned, Scanner},
        patience::Watch,
    },
};

/// After the last answer, what a client still sends is thrown away for so long: closed with unread bytes, the kernel
/// would reset the connection, and the client might never read its answer.
const LINGER: u64 = 5_000;

/// Read at once of a head that comes in pieces.
const PIECE: usize = 4096;

const NONE: u8 = u8::MAX;

/// What the stream and the requests that come out of it tell each other.
#[derive(Debug)]
pub struct Link {
    pub watch: Watch,
    /// The fault that ended the stream.
    fault: AtomicU8,
    /// It stands in place of the request with this number, counted from 1; 0 if it is about none.
    in_place_of: AtomicU64,
    /// It was answered or counted.
    told: AtomicBool,
    /// Why one of its streams is being let go at this moment, where there are several.
    letting_go: AtomicU8,
    switch: AtomicU8,
}

const NOT_ASKED: u8 = 0;
const ASKED: u8 = 1;
const STAYS: u8 = 2;
const SWITCHES: u8 = 3;

/// A client's stream on its way to hyper.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    link: Arc<Link>,
    scanner: Scanner,
    limits: Limits,
    mode: Mode,
    /// What has been read and not been taken: first what may be (`ready` bytes), then what is held back.
    held: Vec<u8>,
    ready: usize,
    waiting: Option<Waiting>,
    blocked: Option<Moment>,
    linger: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Http,
    /// The answer will say whether the protocol changes.
    Asked,
    /// No longer HTTP.
    Switched,
    /// Nothing more is taken from this client.
    Refused,
    /// Nor was its last body whole.
    BrokenOff,
}

/// What the client is being waited for, and since when.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    phase: Phase,
    heads: u64,
    since: Moment,
}

// === impl Link ===

impl Default for Link {
    fn default() -> Self {
        Self {
            watch: Watch::default(),
            fault: AtomicU8::new(NONE),
            in_place_of: AtomicU64::new(0),
            told: AtomicBool::new(false),
            letting_go: AtomicU8::new(NONE),
            switch: AtomicU8::new(NOT_ASKED),
        }
    }
}

impl Link {
    /// Why the request with this number is none.
    pub fn fault_in_place_of(&self, number: u64) -> Option<Fault> {
        let fault = self.fault()?;
        let found = self.in_place_of.load(Ordering::Relaxed) == number;
        self.told.fetch_or(found, Ordering::Relaxed);
        found.then_some(fault)
    }

    /// Why the stream ended, if it was for a fault.
    pub fn fault(&self) -> Option<Fault> {
        Fault::from_number(self.fault.load(Ordering::Relaxed))
    }

    /// Lets go of one of several streams, for this fault: whatever ends in `work` ends for it.
    pub fn let_go<T>(&self, fault: Fault, work: impl FnOnce() -> T) -> T {
        self.letting_go.store(fault as u8, Ordering::Relaxed);
        let done = work();
        self.letting_go.store(NONE, Ordering::Relaxed);
        done
    }

    /// Why a client is let go that doesn't leave by itself: for taking nothing.
    pub fn why_let_go(&self) -> Option<Fault> {
        let one_of_many = Fault::from_number(self.letting_go.load(Ordering::Relaxed));
        one_of_many
            .or(self.fault())
            .filter(|fault| matches!(fault, Fault::AnswerTimeout | Fault::StreamTimeout))
    }

    /// The fault that nobody has told of yet.
    pub fn untold(&self) -> Option<Fault> {
        self.fault().filter(|_| !self.told.swap(true, Ordering::Relaxed))
    }

    /// A request was answered; where it asked for a switch, this is whether it happens.
    pub fn answered(&self, switches: bool) {
        if self.switch.load(Ordering::Relaxed) == ASKED {
            self.switch.store(if switches { SWITCHES } else { STAYS }, Ordering::Relaxed);
            self.watch.wake();
        }
    }

    fn fail(&self, fault: Fault, in_place_of: u64) {
        self.in_place_of.store(in_place_of, Ordering::Relaxed);
        self.fault.store(fault as u8, Ordering::Relaxed);
    }
}

// === impl Guarded ===

impl<S> Guarded<S> {
    pub fn new(inner: S, link: Arc<Link>, limits: &Limits) -> Self {
        let head = HeadLimits { fields: limits.fields, size: limits.head };
        Self {
            inner,
            link,
            scanner: Scanner::new(head),
            limits: limits.clone(),
            mode: Mode::Http,
            held: Vec::new(),
            ready: 0,
            waiting: None,
            blocked: None,
            linger: None,
        }
    }

    /// Hands out what may be taken.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.ready.min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.drain(..length);
        self.ready -= length;
        if self.held.is_empty() && self.held.capacity() > 4 * PIECE {
            self.held = Vec::new();
        }
    }

    /// What was held back is looked at again.
    fn look_again(&mut self) {
        match self.scanner.scan(&self.held) {
            Scanned::Whole => self.ready = self.held.len(),
            Scanned::Hold(at) => self.ready = at,
            Scanned::Asked(at) => {
                self.ready = at;
                self.ask();
            }
            Scanned::BadHead(at, fault) => self.refuse(at, fault),
            Scanned::BadBody(at, fault) => {
                self.ready = at;
                self.break_off(fault);
            }
        }
    }

    fn ask(&mut self) {
        self.mode = Mode::Asked;
        self.link.switch.store(ASKED, Ordering::Relaxed);
    }

    /// The head that is held from `at` on gives way to a request that stands for the fault. It keeps the request line,
    /// for the log, if that is one.
    fn refuse(&mut self, at: usize, fault: Fault) {
        let known = self.scanner.request_line(&self.held[at..]).filter(|(method, target, _)| {
            *method != b"CONNECT" && Method::from_bytes(method).is_ok() && Uri::try_from(*target).is_ok()
        });
        let (method, target, http_11) = known.unwrap_or((b"-", b"*", true));
        let version: &[u8] = if http_11 { b" HTTP/1.1" } else { b" HTTP/1.0" };
        let stand_in = [method, b" ", target, version, b"\r\nconnection: close\r\n\r\n"].concat();
        self.held.truncate(at);
        self.held.extend_from_slice(&stand_in);
        self.ready = self.held.len();
        self.mode = Mode::Refused;
        self.link.fail(fault, self.scanner.heads() + 1);
    }

    /// A body ends with an error: hyper tells whoever reads it, and can still write the answer.
    fn break_off(&mut self, fault: Fault) {
        self.mode = Mode::BrokenOff;
        self.link.fail(fault, 0);
    }

    /// Nothing came; whether the client has had its time.
    fn has_waited_enough(&mut self, cx: &Context<'_>) -> bool {
        let (phase, heads) = (self.scanner.phase(), self.scanner.heads());
        let limit = match (self.mode, phase) {
            (Mode::Switched, _) => self.limits.stream_idle,
            // Bodies have a watch of their own; it knows whether anybody wants to have them.
            (Mode::Refused | Mode::BrokenOff | Mode::Asked, _) | (Mode::Http, Phase::Body) => return false,
            (Mode::Http, Phase::Head) => self.limits.head_time,
            (Mode::Http, Phase::Idle) if heads == 0 => self.limits.head_time,
            (Mode::Http, Phase::Idle) => self.limits.keep_alive,
        };
        let now = Moment::recent();
        let since = match self.waiting {
            Some(waiting) if waiting.phase == phase && waiting.heads == heads => waiting.since,
            _ => {
                self.waiting = Some(Waiting { phase, heads, since: now });
                now
            }
        };
        let due = since.after(limit);
        self.link.watch.waits_to_read(due, cx);
        now >= due
    }

    /// The client's time is over, and it did not say a word or not all of it.
    fn give_up(&mut self) -> io::Result<()> {
        match (self.mode, self.scanner.phase()) {
            (Mode::Switched, _) => {
                self.link.fail(Fault::StreamTimeout, 0);
                Err(io::Error::from(io::ErrorKind::TimedOut))
            }
            (Mode::Http, Phase::Head) => {
                self.refuse(0, Fault::HeadTimeout);
                Ok(())
            }
            // Between two requests there is nothing to say: it ends as if the client had hung up.
            _ => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads behind what is held.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length = self.held.len();
        self.held.resize(length + PIECE, 0);
        let mut piece = ReadBuf::new(&mut self.held[length..]);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut piece);
        let read = piece.filled().len();
        self.held.truncate(length + read);
        ready!(polled)?;
        self.link.watch.reads();
        Poll::Ready(Ok(read))
    }

    /// Throws away what comes; ready at its end.
    fn poll_throw_away(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 8192];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Straight into hyper's buffer, where nothing is held: the way of almost everything.
    fn poll_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Through>> {
        let before = buf.filled().len();
        if Pin::new(&mut self.inner).poll_read(cx, buf)?.is_pending() {
            return Poll::Pending;
        }
        self.link.watch.reads();
        let read = &buf.filled()[before..];
        if read.is_empty() || self.mode == Mode::Switched {
            self.waiting = None;
            return Poll::Ready(Ok(Through::Done));
        }
        let (at, end) = match self.scanner.scan(read) {
            Scanned::Whole => return Poll::Ready(Ok(Through::Done)),
            Scanned::BadBody(at, fault) => {
                self.break_off(fault);
                buf.set_filled(before + at);
                return Poll::Ready(Ok(if at > 0 { Through::Done } else { Through::Again }));
            }
            Scanned::Hold(at) => (at, None),
            Scanned::Asked(at) => {
                self.ask();
                (at, None)
            }
            Scanned::BadHead(at, fault) => (at, Some(fault)),
        };
        self.held.extend_from_slice(&read[at..]);
        buf.set_filled(before + at);
        if let Some(fault) = end {
            self.refuse(0, fault);
        }
        Poll::Ready(Ok(if at > 0 { Through::Done } else { Through::Again }))
    }
}

/// Whether something is in the buffer (or the stream has ended).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Done,
    Again,
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                this.hand_out(buf);
                return Poll::Ready(Ok(()));
            }
            let ended = match this.mode {
                Mode::Refused => {
                    // Neither bytes nor an end: hyper would give up before the fault is answered.
                    let _ = this.poll_throw_away(cx)?;
                    return Poll::Pending;
                }
                Mode::BrokenOff => return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData))),
                Mode::Asked => match this.link.switch.load(Ordering::Relaxed) {
                    SWITCHES => {
                        this.mode = Mode::Switched;
                        this.ready = this.held.len();
                        continue;
                    }
                    STAYS => {
                        this.mode = Mode::Http;
                        this.link.switch.store(NOT_ASKED, Ordering::Relaxed);
                        this.scanner.stays();
                        if !this.held.is_empty() {
                            this.look_again();
                        }
                        continue;
                    }
                    _ => {
                        this.link.watch.wake_me(cx);
                        if this.held.len() >= 4 * PIECE {
                            return Poll::Pending;
                        }
                        match this.poll_more(cx)? {
                            Poll::Ready(0) => return Poll::Ready(Ok(())),
                            Poll::Ready(_) => continue,
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                },
                Mode::Http | Mode::Switched if this.held.is_empty() => match this.poll_through(cx, buf)? {
                    Poll::Ready(Through::Done) => return Poll::Ready(Ok(())),
                    Poll::Ready(Through::Again) => continue,
                    Poll::Pending => false,
                },
                Mode::Http | Mode::Switched => match this.poll_more(cx)? {
                    Poll::Ready(0) => true,
                    Poll::Ready(_) => {
                        this.look_again();
                        continue;
                    }
                    Poll::Pending => false,
                },
            };
            // Half a head, and nothing more to come, is not worth an answer.
            if ended {
                return Poll::Ready(Ok(()));
            }
            if !this.has_waited_enough(cx) {
                return Poll::Pending;
            }
            this.give_up()?;
            if this.ready == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Keeps the time of a client that takes nothing.
    fn watched<T>(&mut self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            // Either direction keeps a connection alive that has switched.
            if let (Mode::Switched, Some(waiting)) = (self.mode, &mut self.waiting) {
                waiting.since = Moment::recent();
            }
            if self.blocked.take().is_some() {
                self.link.watch.writes();
            }
            return polled;
        }
        let (limit, fault) = match self.mode {
            Mode::Switched => (self.limits.stream_idle, Fault::StreamTimeout),
            _ => (self.limits.body_idle, Fault::AnswerTimeout),
        };
        let now = Moment::recent();
        let due = self.blocked.get_or_insert(now).after(limit);
        self.link.watch.waits_to_write(due, cx);
        if now < due {
            return Poll::Pending;
        }
        self.link.fail(fault, 0);
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watched(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.watched(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.watched(cx, polled))?;
            let more_to_come = match this.mode {
                Mode::Refused | Mode::BrokenOff => true,
                Mode::Http => this.scanner.phase() == Phase::Body,
                Mode::Asked | Mode::Switched => false,
            };
            if !more_to_come {
                return Poll::Ready(Ok(()));
            }
        }
        let now = Moment::recent();
        let until = *this.linger.get_or_insert_with(|| now.after(Duration::from_millis(LINGER)));
        if now < until && this.poll_throw_away(cx).is_pending() {
            this.link.watch.waits_to_read(until, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}
