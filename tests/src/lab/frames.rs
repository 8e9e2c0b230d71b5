//! HTTP/2 frame by frame, for what no library would send.

use std::io::Read;

use anyhow::{Context, ensure};

use super::raw::Raw;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..).and_then(<[u8]>::first_chunk::<4>);
        code.map_or(0, |code| u32::from_be_bytes(*code))
    }

    /// The status in a block of an answer: one of the static table's, or a literal behind its name.
    pub fn status(&self) -> Option<u16> {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match *self.payload.first()? {
            first @ 0x88..=0x8e => Some(INDEXED[usize::from(first - 0x88)]),
            // Three digits, Huffman coded in two bytes or plain.
            _ => {
                let value = self.payload.get(2..)?;
                std::str::from_utf8(value.get(..3)?).ok()?.parse().ok()
            }
        }
    }
}

/// A header block without compression.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Lengths of a byte are enough for tests, and 7 bits of it.
            assert!(text.len() < 127, "a length of two bytes");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A GET's pseudo fields, and others behind them.
pub fn get(path: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":authority", super::SITE), (":path", path)];
    fields.extend_from_slice(others);
    block(&fields)
}

impl Raw {
    /// Begins to speak HTTP/2, as a client.
    pub fn begin_http2(&mut self) -> anyhow::Result<()> {
        self.say([PREFACE, &Frame::new(SETTINGS, 0, 0, &[]).bytes()].concat())
    }

    pub fn say_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> anyhow::Result<()> {
        self.say(Frame::new(kind, flags, stream, payload).bytes())
    }

    pub fn frame(&mut self) -> anyhow::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).context("no frame")?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        ensure!(length < 1 << 20, "not a frame: {head:?}");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).context("the frame broke off")?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of one of these kinds.
    pub fn frame_of(&mut self, kinds: &[u8]) -> anyhow::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if kinds.contains(&frame.kind) {
                return Ok(frame);
            }
        }
    }
}
