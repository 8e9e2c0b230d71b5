//! An answer on its way to its client: its head, and its body in the framing that the head tells. Small pieces are put
//! together, which costs less than a system call, or a record of TLS, for each.

use std::{
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};

use super::{
    answer::{self, Framing, Manner},
    wire::Wire,
};
use crate::{
    body::ResponseBody,
    hygiene::{Fault, patience::Stall},
    upstream::http1::end_chunks,
};

/// Pieces below this size are copied behind what is to be sent anyway, up to twice as much.
const COPIED: usize = 4 * 1024;

/// Why an answer does not get to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broke {
    /// The client is gone.
    Client,
    /// It takes nothing.
    StoodStill,
    /// The rest of it is not there.
    Server,
}

#[derive(Debug)]
pub struct Sending {
    body: Option<ResponseBody>,
    /// A piece of the body, which goes behind what the wire has to send.
    data: Bytes,
    /// The line end behind that piece, if it is a chunk's, is still to be written.
    in_chunk: bool,
    framing: Framing,
    trailers: bool,
    keep_alive: bool,
    broke: bool,
}

// === impl Sending ===

impl Sending {
    /// Begins with an answer. Its head is put on the wire, and goes with the first of its body.
    pub fn new(wire: &Wire, response: Response<ResponseBody>, manner: Manner) -> Self {
        let (head, body) = response.into_parts();
        let body = Some(body).filter(|body| !body.is_end_stream());
        let hint = body.as_ref().map(ResponseBody::size_hint);
        wire.answers();
        let (framing, keep_alive) = wire.put(|out| answer::write(out, &head, hint.as_ref(), manner));
        // To drop what is not sent is its proper end.
        let body = body.filter(|_| !matches!(framing, Framing::None | Framing::Length(0)));
        Self {
            body,
            data: Bytes::new(),
            in_chunk: false,
            framing,
            trailers: manner.trailers,
            keep_alive,
            broke: false,
        }
    }

    /// Whether the client may ask again when all of it is sent.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client would take the connection's end for the answer's.
    pub fn ends_with_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Sends as much as there is and the client takes; ready when that was all.
    pub fn poll(&mut self, wire: &Wire, stall: &mut Stall, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        loop {
            let waits = self.gather(wire, cx);
            let mut moved = false;
            let sent = wire.poll_send(&mut self.data, &mut moved, cx);
            if moved {
                stall.moves();
            }
            match sent {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broke::Client)),
                Poll::Pending => return in_vain(stall, cx),
            }
            let over = self.body.is_none() && !self.in_chunk;
            if !over && !waits {
                continue;
            }
            match wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => stall.moves(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broke::Client)),
                Poll::Pending => return in_vain(stall, cx),
            }
            if over {
                return Poll::Ready(if self.broke { Err(Broke::Server) } else { Ok(()) });
            }
            ready!(wire.poll_left(cx));
            return Poll::Ready(Err(Broke::Client));
        }
    }

    /// Takes what the body has, until it is worth sending; says whether it must be waited for.
    fn gather(&mut self, wire: &Wire, cx: &mut Context<'_>) -> bool {
        while self.data.is_empty() && wire.to_send() < COPIED {
            if std::mem::take(&mut self.in_chunk) {
                wire.put(|out| out.extend_from_slice(b"\r\n"));
            }
            let Some(body) = &mut self.body else { return false };
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(frame))) => {
                    let ended = body.is_end_stream();
                    self.take(wire, frame, ended);
                }
                Poll::Ready(Some(Err(_))) => self.give_up(),
                Poll::Ready(None) => self.end(wire, None),
            }
        }
        false
    }

    fn take(&mut self, wire: &Wire, frame: Frame<Bytes>, ended: bool) {
        match frame.into_data() {
            // An empty chunk would end the body.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                if let Framing::Length(left) = &mut self.framing {
                    match left.checked_sub(data.len() as u64) {
                        Some(less) => *left = less,
                        // More than its head has told would be taken for the next answer.
                        None => return self.give_up(),
                    }
                }
                let is_chunk = self.framing == Framing::Chunked;
                if is_chunk {
                    // Writing to memory can't fail.
                    let _ = wire.put(|out| write!(out, "{:x}\r\n", data.len()));
                }
                self.in_chunk = is_chunk;
                if data.len() < COPIED {
                    wire.put(|out| out.extend_from_slice(&data));
                } else {
                    self.data = data;
                }
                if ended && !is_chunk {
                    self.end(wire, None);
                }
            }
            Err(frame) => self.end(wire, frame.into_trailers().ok()),
        }
    }

    fn end(&mut self, wire: &Wire, trailers: Option<http::HeaderMap>) {
        match self.framing {
            Framing::Length(1..) => return self.give_up(),
            Framing::Chunked => {
                let trailers = trailers.filter(|_| self.trailers);
                wire.put(|out| end_chunks(out, trailers.as_ref()));
            }
            Framing::Length(0) | Framing::None | Framing::UntilClose => {}
        }
        self.body = None;
    }

    /// What is there still goes out, and then nothing.
    fn give_up(&mut self) {
        self.body = None;
        self.in_chunk = false;
        self.broke = true;
    }
}

/// The client takes nothing just now.
fn in_vain(stall: &mut Stall, cx: &Context<'_>) -> Poll<Result<(), Broke>> {
    if stall.is_over(cx) { Poll::Ready(Err(Broke::StoodStill)) } else { Poll::Pending }
}

impl Broke {
    /// What it is counted as.
    pub fn fault(self) -> Option<Fault> {
        (self == Self::StoodStill).then_some(Fault::AnswerTimeout)
    }
}
