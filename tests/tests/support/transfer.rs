//! Transfers of which every byte is checked: a client that says what it wants, and a server that does it.
//!
//! A client begins with a head and as much padding as the head says, which stands for what an edge reads before it knows where
//! a connection goes. Then it uploads; the server says whether all was right, and sends what was asked for.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

pub const HEAD: usize = 32;

/// What the server says to the beginning.
const READY: u8 = 7;

/// What a client wants.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Bytes of padding behind the head.
    pub hello: u64,
    pub upload: u64,
    pub download: u64,
    pub seed: u64,
}

/// Bytes that can be told from those at any other place, without being kept.
struct Pattern {
    state: u64,
    left: u64,
}

impl Pattern {
    fn new(seed: u64, length: u64) -> Self {
        Self { state: seed | 1, left: length }
    }

    fn fill<'a>(&mut self, chunk: &'a mut [u8]) -> &'a [u8] {
        let length = chunk.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for word in chunk[..length].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        self.left -= length as u64;
        &chunk[..length]
    }
}

impl Wish {
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        for (at, number) in [self.hello, self.upload, self.download, self.seed].into_iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub fn read(bytes: &[u8; HEAD]) -> Self {
        let at = |place: usize| u64::from_le_bytes(bytes[place * 8..place * 8 + 8].try_into().unwrap());
        Self { hello: at(0), upload: at(1), download: at(2), seed: at(3) }
    }
}

/// What is wrong with a stream: that it ended, or that it has other bytes.
fn check(from: &mut impl Read, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed, length);
    let (mut expected, mut found) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    while pattern.left > 0 {
        let at = length - pattern.left;
        let expected = pattern.fill(&mut expected);
        let found = &mut found[..expected.len()];
        from.read_exact(found)?;
        if found != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("CORRUPTED near byte {at}")));
        }
    }
    Ok(())
}

fn pour(to: &mut impl Write, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed, length);
    let mut chunk = vec![0; 64 << 10];
    while pattern.left > 0 {
        to.write_all(pattern.fill(&mut chunk))?;
    }
    Ok(())
}

/// Serves transfers, each on a thread of its own, for as long as the process lives.
pub fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || drop(serve_one(stream)));
        }
    });
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let wish = Wish::read(&head);
    let hello = check(&mut stream, wish.seed, wish.hello);
    stream.write_all(&[READY])?;
    let outcome = hello
        .and_then(|()| check(&mut stream, wish.seed ^ 2, wish.upload))
        .map_or_else(|error| u8::from(error.kind() == io::ErrorKind::InvalidData) + 1, |()| 0);
    stream.write_all(&[outcome])?;
    pour(&mut stream, wish.seed ^ 4, wish.download)?;
    stream.shutdown(Shutdown::Write)?;
    // The client ends last, or has ended already.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Sends the beginning in pieces of so many bytes, each in a packet of its own.
    pub pieces: Option<usize>,
    /// Doesn't wait for the server's first word before it uploads.
    pub is_early: bool,
    /// Says that it has nothing more to send before it reads the answer.
    pub closes_first: bool,
}

/// A whole transfer.
///
/// # Errors
/// When it breaks, or bytes are wrong.
pub fn transfer(to: SocketAddr, wish: Wish, manner: Manner) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut hello = wish.bytes().to_vec();
    pour(&mut hello, wish.seed, wish.hello)?;
    match manner.pieces {
        Some(length) => {
            stream.set_nodelay(true)?;
            hello.chunks(length).try_for_each(|piece| stream.write_all(piece))?;
        }
        None => stream.write_all(&hello)?,
    }
    let ready = |stream: &mut TcpStream| -> io::Result<()> {
        let mut word = [0];
        stream.read_exact(&mut word)?;
        if word == [READY] {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "CORRUPTED word"))
        }
    };
    if !manner.is_early {
        ready(&mut stream)?;
    }
    pour(&mut stream, wish.seed ^ 2, wish.upload)?;
    if manner.closes_first {
        stream.shutdown(Shutdown::Write)?;
    }
    if manner.is_early {
        ready(&mut stream)?;
    }
    let mut outcome = [9];
    stream.read_exact(&mut outcome)?;
    match outcome {
        [0] => {}
        [1] => return Err(io::Error::other("the upload ended early")),
        other => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("CORRUPTED upload: {other:?}")));
        }
    }
    check(&mut stream, wish.seed ^ 4, wish.download)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "CORRUPTED: more than was asked for")),
    }
}
