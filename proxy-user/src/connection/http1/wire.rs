//! What a connection and the body of its request share: the stream, what was received of it, and what is to be sent.
//!
//! Between two requests it holds no buffer: bytes are read into one that all connections of a worker share, and only what
//! came is kept.

mod state;

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Version, request::Parts};
use http_body::Frame;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use self::state::{READ, State};
use super::{
    body::BodyFault,
    stream::{Stream, Switched},
};
use crate::{
    hygiene::{
        Fault,
        http1::{Asked, HeadLimits, Reader},
    },
    upgrade::Crossing,
};

/// While a request is answered, so much is read of those behind it.
const AHEAD: usize = 16 * 1024;

/// So much may wait to be sent before the answer.
const LARGEST_EARLY: usize = 64 * 1024;

/// Idle connections leave their buffers for others, unless they have grown beyond this,
const LARGEST_SPARE: usize = 64 * 1024;

/// or there are so many.
const MOST_SPARES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Which of a connection's requests it is.
pub type Turn = u32;

#[derive(Debug)]
pub struct Wire {
    state: RefCell<State>,
    turn: Cell<Turn>,
}

/// What comes next from a client.
#[derive(Debug)]
pub enum Next {
    Request(Asked),
    /// Nothing good.
    Refused(Parts, Fault),
    /// Nothing more.
    End,
}

/// Where a connection goes if its request is granted a switch.
#[derive(Debug)]
pub struct Switch(pub(super) Rc<Wire>);

impl Switch {
    /// To this server.
    pub fn to(self, crossing: Crossing) {
        self.0.state.borrow_mut().switch = Some(crossing);
    }
}

// === impl Wire ===

impl Wire {
    pub fn new(stream: Stream, limits: HeadLimits) -> Rc<Self> {
        let state = State {
            stream,
            reader: Reader::new(limits),
            received: BytesMut::new(),
            out: Vec::new(),
            sent: 0,
            unflushed: false,
            early: false,
            expects: false,
            answering: false,
            wanted: false,
            read: READ,
            ended: false,
            fault: None,
            watcher: None,
            switch: None,
        };
        Rc::new(Self { state: RefCell::new(state), turn: Cell::new(0) })
    }

    pub fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// Whether nothing has come of the next request.
    pub fn is_idle(&self) -> bool {
        self.state.borrow().received.is_empty()
    }

    /// Gives back every buffer, for as long as nothing is to do.
    pub fn rest(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.received.is_empty() {
            state.received = BytesMut::new();
        }
        state.watcher = None;
        let out = std::mem::take(&mut state.out);
        if (1..=LARGEST_SPARE).contains(&out.capacity()) {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < MOST_SPARES {
                    spare.push(out);
                }
            });
        }
    }

    /// The next request, once its head is whole.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let state = &mut *self.state.borrow_mut();
        loop {
            if !state.received.is_empty() {
                match state.reader.head(&mut state.received) {
                    Ok(Some(asked)) => {
                        self.takes_body_back();
                        state.wanted = state.reader.is_in_body();
                        state.early = asked.parts.version == Version::HTTP_11;
                        state.expects = state.wanted && state.early && asked.wishes.expects;
                        state.answering = false;
                        return Poll::Ready(Next::Request(asked));
                    }
                    Ok(None) => {}
                    Err(fault) => {
                        let parts = state.reader.refused(&state.received);
                        return Poll::Ready(Next::Refused(parts, fault));
                    }
                }
            }
            if state.ended || !matches!(ready!(state.poll_receive(cx)), Ok(1..)) {
                state.ended = true;
                return Poll::Ready(Next::End);
            }
        }
    }

    /// What stands for a request whose head doesn't get whole.
    pub fn unfinished(&self) -> Parts {
        let state = self.state.borrow();
        state.reader.refused(&state.received)
    }

    /// While a request is answered: ready when its client is gone. One that has only closed its side may still read.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        if state.reader.is_in_body() {
            // Whoever reads the body notices, and wakes us where it ends.
            match &mut state.watcher {
                Some(watcher) => watcher.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        while !state.ended && state.received.len() < AHEAD {
            match ready!(state.poll_receive(cx)) {
                Ok(0) => state.ended = true,
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    // === the body ===

    pub fn poll_body(
        &self,
        turn: Turn,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let state = &mut *self.state.borrow_mut();
        if turn != self.turn.get() {
            return Poll::Ready(Some(Err(BodyFault::Late)));
        }
        state.go_on(cx);
        let next = ready!(state.poll_piece(cx));
        if !state.reader.is_in_body()
            && let Some(watcher) = state.watcher.take()
        {
            watcher.wake();
        }
        Poll::Ready(next)
    }

    /// What is left of the body, where that is known.
    pub fn left_of_body(&self, turn: Turn) -> Option<u64> {
        if turn == self.turn.get() { self.state.borrow().reader.left() } else { Some(0) }
    }

    pub fn is_unwanted(&self, turn: Turn) {
        if turn == self.turn.get() {
            self.state.borrow_mut().wanted = false;
        }
    }

    /// Whether the body isn't over, and nobody will read the rest of it.
    pub fn is_left_over(&self) -> bool {
        let state = self.state.borrow();
        state.reader.is_in_body() && (!state.wanted || state.fault.is_some())
    }

    /// Whether the rest of the body may be thrown away to get at the next request: no more than `most` bytes are to come,
    /// as far as that is known, and the client doesn't wait for a word.
    pub fn may_skip(&self, most: u64) -> bool {
        let state = self.state.borrow();
        state.fault.is_none() && !state.expects && state.reader.left().is_none_or(|left| left <= most)
    }

    /// From now on, whoever holds the body gets no more of it.
    pub fn takes_body_back(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// Throws the rest of the body away: no more than `left` bytes, or it is not worth it.
    pub fn poll_skip(&self, left: &mut u64, cx: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            match ready!(state.poll_piece(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(fault)) => return Poll::Ready(Err(fault)),
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    match left.checked_sub(length) {
                        Some(less) => *left = less,
                        None => return Poll::Ready(Err(BodyFault::Late)),
                    }
                }
            }
        }
    }

    pub fn is_in_body(&self) -> bool {
        self.state.borrow().reader.is_in_body()
    }

    /// The rule that the client broke in its body.
    pub fn fault(&self) -> Option<Fault> {
        self.state.borrow().fault
    }

    // === the answer ===

    /// Puts behind what is to be sent.
    pub fn put<T>(&self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let state = &mut *self.state.borrow_mut();
        if state.out.capacity() == 0 {
            state.out = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        write(&mut state.out)
    }

    /// So many bytes are to be sent.
    pub fn to_send(&self) -> usize {
        let state = self.state.borrow();
        state.out.len() - state.sent
    }

    pub fn takes_early_heads(&self) -> bool {
        self.state.borrow().early
    }

    /// Says something before the answer, unless that has begun, or the client doesn't take what it was told before.
    pub fn tell_early(&self, turn: Turn, write: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.state.borrow_mut();
        if turn == self.turn.get() && !state.answering && state.out.len() < LARGEST_EARLY {
            write(&mut state.out);
            // Nobody waits for it to go: at the latest it does before the answer.
            state.send_early(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// The answer has begun: a word to go on would come too late.
    pub fn answers(&self) {
        self.state.borrow_mut().answering = true;
    }

    /// Sends what is to be sent, and `data` behind it; notes whether something moved.
    pub fn poll_send(
        &self,
        data: &mut Bytes,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        while state.sent < state.out.len() || !data.is_empty() {
            let sent = ready!(state.poll_write(data, cx))?;
            *moved = true;
            let of_out = sent.min(state.out.len() - state.sent);
            state.sent += of_out;
            data.advance(sent - of_out);
        }
        state.out.clear();
        state.sent = 0;
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        if state.unflushed {
            ready!(Pin::new(&mut state.stream).poll_flush(cx))?;
            state.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    // === the end ===

    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state.borrow_mut().stream).poll_shutdown(cx)
    }

    /// Whether the client is in the middle of sending something.
    pub fn may_be_sent_more(&self) -> bool {
        let state = self.state.borrow();
        !state.ended && (state.reader.is_in_body() || !state.received.is_empty())
    }

    /// Throws away all that comes, unread; ready at its end.
    pub fn poll_throw_away(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(state.stream.tcp()).poll_read(cx, &mut buffer));
                if read.is_err() || buffer.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        })
    }

    pub fn switches(&self) -> bool {
        self.state.borrow().switch.is_some()
    }

    /// Where the connection goes, if it was granted a switch.
    pub fn take_switch(&self) -> Option<Crossing> {
        self.state.borrow_mut().switch.take()
    }

    /// The stream, for another protocol. `None` if the request that asked for it isn't over.
    pub fn switched(this: Rc<Self>) -> Option<Switched> {
        let state = Rc::into_inner(this)?.state.into_inner();
        Some(Switched { stream: state.stream, received: state.received })
    }

    /// Closes with a reset: nobody shall take what was sent for all there is.
    pub fn reset(&self) {
        super::super::reset(self.state.borrow_mut().stream.tcp());
    }
}
