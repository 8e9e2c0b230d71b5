//! Reads a client's HTTP/1 stream, strictly: takes requests out of what was received, one after the other, each a head
//! and then the pieces of its body. Pure, without I/O.
//!
//! A head is taken once it is whole, and looked at once, line by line. What passes is read by every reader alike (tested
//! against httparse, and fuzzed).

mod chunks;
mod head;
mod parts;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Version, request::Parts};

use self::chunks::{Chunks, Met};
use self::head::Head;
pub use self::head::Wishes;
use crate::hygiene::Fault;

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    pub fields: usize,
    /// Bytes, with all line ends.
    pub size: usize,
}

/// A request without its body.
#[derive(Debug)]
pub struct Asked {
    pub parts: Parts,
    pub wishes: Wishes,
}

/// What came next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing: more must be received.
    Short,
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is at its end.
    Over,
}

#[derive(Debug)]
pub struct Reader {
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Sized(u64),
    Chunks(Chunks),
    /// The fields behind the last chunk.
    Trailers(Head),
}

// === impl Reader ===

impl Reader {
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(Head::default()) }
    }

    /// Whether a body is being read, and not at its end.
    pub fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head(_))
    }

    /// How much of the body is still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match &self.state {
            State::Head(_) => Some(0),
            State::Sized(left) => Some(*left),
            State::Chunks(_) | State::Trailers(_) => None,
        }
    }

    /// Takes the next head, once all of it is there. `received` begins with it, until it is taken.
    ///
    /// # Errors
    /// With the rule that it breaks; then [`Self::refused`] tells what is known of it.
    pub fn head(&mut self, received: &mut BytesMut) -> Result<Option<Asked>, Fault> {
        let State::Head(head) = &mut self.state else { return Ok(None) };
        let Some(end) = head.read(received, self.limits)? else { return Ok(None) };
        let bytes = if end == received.len() { std::mem::take(received) } else { received.split_to(end) };
        let bytes = bytes.freeze();
        let parts = parts::of(head, &bytes).inspect_err(|_| *received = bytes.into());
        let asked = Asked { parts: parts?, wishes: head.wishes };
        self.state = match (head.is_chunked(), head.length()) {
            (true, _) => State::Chunks(Chunks::default()),
            (false, 0) => State::Head(Head::default()),
            (false, length) => State::Sized(length),
        };
        Ok(Some(asked))
    }

    /// What stands for a head that is refused: its request line, as far as that is known.
    pub fn refused(&self, received: &[u8]) -> Parts {
        match &self.state {
            State::Head(head) => parts::of_refused(head, received),
            _ => parts::unknown(Version::HTTP_11),
        }
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// With the rule that its frames break.
    pub fn body(&mut self, received: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match &mut self.state {
                State::Head(_) => return Ok(Piece::Over),
                _ if received.is_empty() => return Ok(Piece::Short),
                State::Sized(left) => {
                    let data = up_to(*left, received);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::Head(Head::default());
                    }
                    return Ok(Piece::Data(data));
                }
                State::Chunks(chunks) if chunks.left() > 0 => {
                    let data = up_to(chunks.left(), received);
                    chunks.took(data.len());
                    return Ok(Piece::Data(data));
                }
                State::Chunks(chunks) => {
                    let (length, met) = chunks.read(received)?;
                    received.advance(length);
                    if met == Met::LastChunk {
                        self.state = State::Trailers(Head::of_trailers());
                    }
                }
                State::Trailers(head) => {
                    let Some(end) = head.read(received, self.limits)? else { return Ok(Piece::Short) };
                    let bytes = received.split_to(end).freeze();
                    let trailers = parts::fields(head.fields(), &bytes)?;
                    self.state = State::Head(Head::default());
                    return Ok(if trailers.is_empty() { Piece::Over } else { Piece::Trailers(trailers) });
                }
            }
        }
    }
}

fn up_to(left: u64, received: &mut BytesMut) -> Bytes {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(received.len());
    received.split_to(length).freeze()
}

#[cfg(test)]
mod tests;
