//! Reads along with a client's HTTP/1 stream, and says how much of it may be read on: pure, without I/O.
//!
//! A head is held back until it is whole, and looked at once, line by line; of bodies only the chunks' frames are
//! looked at. What passes is read by every reader alike, hyper among them (tested against httparse, and fuzzed).

mod chunks;
mod head;

use crate::hygiene::Fault;
use chunks::{Chunks, Met};
use head::Head;

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    pub fields: usize,
    /// Bytes, with all line ends.
    pub size: usize,
}

/// What became of a stretch of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// All of it may be read.
    Whole,
    /// From here on it is not whole yet, and must be shown again with what comes next.
    Hold(usize),
    /// A message that asks to switch to another protocol ends here. Whether what follows is HTTP, only the answer says:
    /// [`Scanner::stays`] or nothing more.
    Asked(usize),
    /// Up to here it may be read. Then comes a head that is refused.
    BadHead(usize, Fault),
    /// Up to here it may be read. Somewhere in the body that goes on here is a fault.
    BadBody(usize, Fault),
}

/// Where in its stream a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between two messages: nothing of the next one is there.
    Idle,
    Head,
    Body,
}

#[derive(Debug)]
pub struct Scanner {
    limits: HeadLimits,
    state: State,
    /// The message that is being read asks to switch.
    asks: bool,
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Sized(u64),
    Chunks(Chunks),
    /// The fields behind the last chunk.
    Trailers(Head),
    Asked,
}

// === impl Scanner ===

impl Scanner {
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(Head::default()), asks: false, heads: 0 }
    }

    /// So many whole heads have passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Head(head) if head.is_untouched() => Phase::Idle,
            State::Head(_) => Phase::Head,
            State::Sized(_) | State::Chunks(_) | State::Trailers(_) => Phase::Body,
            State::Asked => Phase::Idle,
        }
    }

    /// The switch was not granted: what follows is HTTP.
    pub fn stays(&mut self) {
        self.asks = false;
        self.state = State::Head(Head::default());
    }

    /// The request line of the head that is being read, as far as it is known: method, target, whether it is HTTP/1.1.
    pub fn request_line<'a>(&self, head: &'a [u8]) -> Option<(&'a [u8], &'a [u8], bool)> {
        match &self.state {
            State::Head(known) => known.request_line(head),
            _ => None,
        }
    }

    /// Looks at `bytes`: what follows what passed, beginning with what was held back.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Head(head) => match head.read(rest, self.limits) {
                    Ok(None) if rest.is_empty() => return Scanned::Whole,
                    Ok(None) => return Scanned::Hold(at),
                    Ok(Some(end)) => {
                        at += end;
                        self.heads += 1;
                        self.asks = head.asks_to_switch();
                        self.state = match (head.is_chunked(), head.length()) {
                            (true, _) => State::Chunks(Chunks::default()),
                            (false, length) => State::Sized(length),
                        };
                    }
                    Err(fault) => return Scanned::BadHead(at, fault),
                },
                State::Sized(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    at += here;
                    if *left > 0 {
                        return Scanned::Whole;
                    }
                    self.message_ended();
                }
                State::Chunks(chunks) => match chunks.read(rest) {
                    Ok(Met::More) => return Scanned::Whole,
                    Ok(Met::LastChunk(end)) => {
                        at += end;
                        self.state = State::Trailers(Head::of_trailers());
                    }
                    Err(fault) => return Scanned::BadBody(at, fault),
                },
                State::Trailers(fields) => match fields.read(rest, self.limits) {
                    Ok(None) if rest.is_empty() => return Scanned::Whole,
                    Ok(None) => return Scanned::Hold(at),
                    Ok(Some(end)) => {
                        at += end;
                        self.message_ended();
                    }
                    Err(fault) => return Scanned::BadBody(at, fault),
                },
                State::Asked => return Scanned::Asked(at),
            }
        }
    }

    fn message_ended(&mut self) {
        self.state = if self.asks { State::Asked } else { State::Head(Head::default()) };
    }
}

#[cfg(test)]
mod tests;
