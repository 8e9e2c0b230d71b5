//! A QUIC connection as the HTTP/3 library wants to see it, with three things that it knows nothing of: frames that are
//! too long are refused ([`framing`](super::framing)), what it holds back of a body is bounded, and streams that a
//! client gives up are noticed while their answer is still awaited.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::framing::Framing;

/// So much of a body may wait in the library for being taken. It reads on with every frame that it hands out, so that
/// tiny frames would make it gather without end.
const HELD: u64 = 64 * 1024;

type Opened<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;
type TwoWay = (quinn::SendStream, quinn::RecvStream);

/// A client's connection.
pub struct Connection {
    connection: quinn::Connection,
    two_way: Opened<TwoWay>,
    one_way: Opened<quinn::RecvStream>,
    opening: Option<Opened<quinn::SendStream>>,
    requests: Requests,
    longest_frame: u64,
}

/// What the streams of a connection share with those who answer them.
#[derive(Clone, Default)]
pub struct Requests(Rc<Shared>);

#[derive(Default)]
struct Shared {
    tickets: RefCell<HashMap<u64, Ticket>>,
    /// Streams from this one on were refused by GOAWAY.
    refused_from: Cell<Option<u64>>,
    last: Cell<Option<u64>>,
}

/// What is known of a request's stream beside what the library tells.
pub struct Ticket {
    pub meter: Rc<Meter>,
    /// Resolves when the client wants no answer any more, or has got all of it.
    pub over: Pin<Box<dyn Future<Output = Over>>>,
}

/// How much of a body the library has, and how much of it was taken.
#[derive(Debug, Default)]
pub struct Meter {
    handed: Cell<u64>,
    taken: Cell<u64>,
    /// The head was good: an answer that ends unfinished from now on was broken off.
    pub answering: Cell<bool>,
    /// The head was too long.
    pub too_long: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The client has got the whole answer.
    Delivered,
    Left,
}

/// Where requests come from, and where their answers go.
pub struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

pub struct SendStream {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    wrote: bool,
    over: bool,
    meter: Option<Rc<Meter>>,
}

pub struct RecvStream {
    stream: quinn::RecvStream,
    framing: Framing,
    meter: Rc<Meter>,
    over: bool,
}

/// Opens nothing: servers have only their control stream, which [`Connection`] opens.
pub struct Opener(quinn::Connection);

// === impl Requests ===

impl Requests {
    /// What is known of a stream that was accepted; asked for once.
    pub fn ticket(&self, stream: StreamId) -> Option<Ticket> {
        self.0.tickets.borrow_mut().remove(&stream.into_inner())
    }

    /// From now on no stream is taken that the client has not opened yet: it was told so.
    pub fn refuse_more(&self) {
        self.0.refused_from.set(Some(self.0.last.get().map_or(0, |last| last + 4)));
    }
}

impl Meter {
    /// So much of the body was taken out of the library.
    pub fn takes(&self, bytes: u64) {
        self.taken.set(self.taken.get() + bytes);
    }
}

// === impl Connection ===

impl Connection {
    pub fn new(connection: quinn::Connection, longest_frame: u64) -> (Self, Requests) {
        let requests = Requests::default();
        let this = Self {
            two_way: accept_two_way(&connection),
            one_way: accept_one_way(&connection),
            opening: None,
            connection,
            requests: requests.clone(),
            longest_frame,
        };
        (this, requests)
    }
}

fn accept_two_way(connection: &quinn::Connection) -> Opened<TwoWay> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

fn accept_one_way(connection: &quinn::Connection) -> Opened<quinn::RecvStream> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.one_way.as_mut().poll(cx));
        self.one_way = accept_one_way(&self.connection);
        let framing = Framing::of_one_way(self.longest_frame);
        Poll::Ready(
            accepted
                .map(|stream| RecvStream { stream, framing, meter: Rc::default(), over: false })
                .map_err(lost),
        )
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        loop {
            let accepted = ready!(self.two_way.as_mut().poll(cx));
            self.two_way = accept_two_way(&self.connection);
            let (mut send, mut recv) = accepted.map_err(lost)?;
            let id = VarInt::from(send.id()).into_inner();
            let shared = &self.requests.0;
            if shared.refused_from.get().is_some_and(|from| id >= from) {
                // The client may ask again over another connection: nobody has looked at this.
                let _ = recv.stop(code(Code::H3_REQUEST_REJECTED));
                let _ = send.reset(code(Code::H3_REQUEST_REJECTED));
                continue;
            }
            shared.last.set(Some(id));
            let meter = Rc::<Meter>::default();
            let stopped = send.stopped();
            let over = Box::pin(async move {
                match stopped.await {
                    Ok(None) => Over::Delivered,
                    Ok(Some(_)) | Err(_) => Over::Left,
                }
            });
            shared.tickets.borrow_mut().insert(id, Ticket { meter: meter.clone(), over });
            let framing = Framing::of_request(self.longest_frame);
            return Poll::Ready(Ok(BidiStream {
                send: SendStream::new(send, Some(meter.clone())),
                recv: RecvStream { stream: recv, framing, meter, over: false },
            }));
        }
    }

    fn opener(&self) -> Opener {
        Opener(self.connection.clone())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let opening = self.opening.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map(|stream| SendStream::new(stream, None)).map_err(stream_lost))
    }

    fn close(&mut self, why: Code, reason: &[u8]) {
        self.connection.close(code(why), reason);
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        Poll::Ready(Err(never_opened()))
    }

    fn close(&mut self, why: Code, reason: &[u8]) {
        self.0.close(code(why), reason);
    }
}

// === impl SendStream ===

impl SendStream {
    fn new(stream: quinn::SendStream, meter: Option<Rc<Meter>>) -> Self {
        Self { stream, writing: None, wrote: false, over: false, meter }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(Buf::has_remaining) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk()));
            data.advance(written.map_err(unwritten)?);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.wrote = true;
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.over = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, why: u64) {
        self.over = true;
        // An error means that it is over already.
        let _ = self.stream.reset(VarInt::from_u64(why).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // QUIC would end it as if it were whole. That is right for the library's own answers, which are heads alone.
        let cut_off = self.meter.as_ref().is_some_and(|meter| meter.answering.get() || !self.wrote);
        if !self.over && cut_off {
            let _ = self.stream.reset(code(Code::H3_REQUEST_CANCELLED));
        }
    }
}

// === impl RecvStream ===

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.meter.handed.get() - self.meter.taken.get() > HELD {
            // Nobody has to be woken: there is enough to take already, and who takes it comes here again.
            return Poll::Pending;
        }
        // Nothing is lost with the future: it only asks the connection.
        let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        let Some(chunk) = chunk.map_err(unread)? else {
            self.over = true;
            // The library would take a body that was cut off for a whole one.
            return Poll::Ready(if self.framing.is_between_frames() { Ok(None) } else { Err(cut_off()) });
        };
        match self.framing.pass(&chunk.bytes) {
            Ok(data) => self.meter.handed.set(self.meter.handed.get() + data),
            Err(_) => {
                self.meter.too_long.set(true);
                self.stop_sending(Code::H3_EXCESSIVE_LOAD.value());
                return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated {
                    error_code: Code::H3_EXCESSIVE_LOAD.value(),
                }));
            }
        }
        Poll::Ready(Ok(Some(chunk.bytes)))
    }

    fn stop_sending(&mut self, why: u64) {
        self.over = true;
        // An error means that it is over already.
        let _ = self.stream.stop(VarInt::from_u64(why).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.over {
            // The answer does not depend on the rest.
            let _ = self.stream.stop(code(Code::H3_NO_ERROR));
        }
    }
}

// === impl BidiStream ===

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, why: u64) {
        self.send.reset(why);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, why: u64) {
        self.recv.stop_sending(why);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

// === Errors, in the library's words ===

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn stream_lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(why) => StreamErrorIncoming::StreamTerminated { error_code: why.into_inner() },
        ReadError::ConnectionLost(error) => stream_lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(why) => StreamErrorIncoming::StreamTerminated { error_code: why.into_inner() },
        WriteError::ConnectionLost(error) => stream_lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn cut_off() -> StreamErrorIncoming {
    StreamErrorIncoming::StreamTerminated { error_code: Code::H3_FRAME_ERROR.value() }
}

fn never_opened() -> StreamErrorIncoming {
    let why = "a server of HTTP/3 opens no such streams".to_owned();
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: ConnectionErrorIncoming::InternalError(why),
    }
}

fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

fn id(stream: quinn::StreamId) -> StreamId {
    // Both are integers of 62 bits.
    StreamId::try_from(VarInt::from(stream).into_inner()).unwrap_or_else(|_| unreachable!("QUIC's own id"))
}
