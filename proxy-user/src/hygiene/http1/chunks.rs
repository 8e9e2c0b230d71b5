//! The frames of a chunked body (RFC 9112 §7.1), up to and with the line of the last chunk.

use crate::hygiene::Fault;

/// Of all the extensions of a body, so many bytes: nobody uses them, and each reader skips them in its own way.
const EXTENSIONS: u32 = 4096;

#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Of the chunk at hand: what its line says, then what is left of it.
    size: u64,
    digits: u32,
    extensions: u32,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
}

/// What comes behind a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Nothing that is known yet.
    More,
    /// Bytes of the body: [`Chunks::left`].
    Data,
    /// Trailers: that was the last chunk.
    LastChunk,
}

impl Chunks {
    /// So many bytes of data come next, before another frame does.
    pub fn left(&self) -> u64 {
        if matches!(self.state, State::Data) { self.size } else { 0 }
    }

    /// So many of them were taken.
    pub fn took(&mut self, length: usize) {
        self.size -= length as u64;
        if self.size == 0 {
            self.state = State::DataReturn;
        }
    }

    /// Reads the frames that `bytes` begin with, where no data comes next. Says how many bytes they are.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Met), Fault> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Size, b'\r') if self.digits > 0 => State::SizeLineFeed,
                (State::Size, b';') if self.digits > 0 => State::Extension,
                (State::Size, _) => {
                    self.digit(byte)?;
                    State::Size
                }
                (State::Extension, b'\r') => State::SizeLineFeed,
                (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => {
                    self.extensions += 1;
                    if self.extensions > EXTENSIONS {
                        return Err(Fault::Chunk);
                    }
                    State::Extension
                }
                (State::SizeLineFeed, b'\n') if self.size == 0 => return Ok((at + 1, Met::LastChunk)),
                (State::SizeLineFeed, b'\n') => {
                    self.state = State::Data;
                    return Ok((at + 1, Met::Data));
                }
                (State::DataReturn, b'\r') => State::DataLineFeed,
                (State::DataLineFeed, b'\n') => {
                    self.digits = 0;
                    State::Size
                }
                _ => return Err(Fault::Chunk),
            };
        }
        Ok((bytes.len(), Met::More))
    }

    /// 15 digits are a petabyte: nothing overflows, here or with a reader of 63 bits behind.
    fn digit(&mut self, byte: u8) -> Result<(), Fault> {
        let value = char::from(byte).to_digit(16).ok_or(Fault::Chunk)?;
        self.digits += 1;
        if self.digits > 15 {
            return Err(Fault::Chunk);
        }
        self.size = self.size * 16 + u64::from(value);
        Ok(())
    }
}
