//! Where the body of a server's answer ends (RFC 9112 §6), and what is in it. Pure: over what was received.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::Malformed;

/// A chunk's size line with its extensions may be this long, in bytes: as much as hyper and nginx suffer at least.
const LONGEST_LINE: usize = 4 * 1024;

/// All trailer fields together may be this long, in bytes.
const LONGEST_TRAILERS: usize = 16 * 1024;

/// As many trailer fields as a head may have fields.
const MOST_TRAILERS: usize = 100;

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// All that comes until the server closes.
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// Before the line with a chunk's size.
    Size,
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// Before the line end behind a chunk.
    End,
    /// Behind the last chunk.
    Trailers,
    Over,
}

/// What could be made of what was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing: more must be received.
    Short,
    /// The body is at its end.
    Over,
}

impl Framing {
    /// Without a body, or at its end.
    pub const OVER: Self = Self::Length(0);

    pub fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Over))
    }

    /// The number of bytes that are still to come, where that is known.
    pub fn exact(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(Chunk::Over) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next piece of the body, taken out of `received`.
    ///
    /// # Errors
    /// When it isn't chunked as RFC 9112 §7.1 says.
    pub fn next(&mut self, received: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Length(0) => Ok(Piece::Over),
            _ if received.is_empty() && *self != Self::Chunked(Chunk::Over) => Ok(Piece::Short),
            Self::Length(left) => Ok(Piece::Data(up_to(left, received))),
            Self::UntilClose => Ok(Piece::Data(received.split().freeze())),
            Self::Chunked(chunk) => chunk.next(received),
        }
    }
}

impl Chunk {
    fn next(&mut self, received: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self {
                Self::Size => match line(received)? {
                    None => return Ok(Piece::Short),
                    Some(line) => {
                        *self = match size(&line)? {
                            0 => Self::Trailers,
                            size => Self::Data(size),
                        }
                    }
                },
                Self::Data(_) if received.is_empty() => return Ok(Piece::Short),
                Self::Data(left) => {
                    let data = up_to(left, received);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(Piece::Data(data));
                }
                Self::End => {
                    if received.len() < 2 {
                        return Ok(Piece::Short);
                    }
                    if !received.starts_with(b"\r\n") {
                        return Err(Malformed::Chunk);
                    }
                    received.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers => {
                    let Some(trailers) = trailers(received)? else { return Ok(Piece::Short) };
                    *self = Self::Over;
                    return Ok(if trailers.is_empty() { Piece::Over } else { Piece::Trailers(trailers) });
                }
                Self::Over => return Ok(Piece::Over),
            }
        }
    }
}

fn up_to(left: &mut u64, received: &mut BytesMut) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
    *left -= length as u64;
    received.split_to(length).freeze()
}

/// A whole line, without its end.
fn line(received: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    match memchr(b'\n', received) {
        Some(end) if end < LONGEST_LINE => {
            let mut line = received.split_to(end + 1);
            line.truncate(end);
            match line.last() {
                Some(b'\r') => line.truncate(end - 1),
                _ => return Err(Malformed::Chunk),
            }
            Ok(Some(line))
        }
        None if received.len() < LONGEST_LINE => Ok(None),
        _ => Err(Malformed::Chunk),
    }
}

/// The size in a chunk's line: hexadecimal digits, then perhaps white space and extensions, which mean nothing to us.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let rest = rest.trim_ascii_start();
    let extensions_only = (rest.is_empty() || rest[0] == b';') && !rest.contains(&b'\r');
    // Fifteen digits are a thousand terabytes, and can't overflow.
    if !(1..=15).contains(&digits.len()) || !extensions_only {
        return Err(Malformed::Chunk);
    }
    Ok(digits.iter().fold(0, |size, digit| size << 4 | u64::from(value(*digit))))
}

fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        // Lower and upper case differ in one bit.
        letter => (letter | 0x20) - b'a' + 10,
    }
}

/// The trailer fields, once they are there to the empty line that ends them.
fn trailers(received: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    if received.starts_with(b"\r\n") {
        received.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let parsed = httparse::parse_headers(received, &mut fields).map_err(Malformed::Head)?;
    let httparse::Status::Complete((length, fields)) = parsed else {
        return if received.len() < LONGEST_TRAILERS { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Field)?);
    }
    received.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of a body, received in pieces of `step` bytes: its data, its trailers, what was left over.
    fn read(
        mut framing: Framing,
        sent: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, HeaderMap, BytesMut), Malformed> {
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut received = BytesMut::new();
        let mut sent = sent.chunks(step);
        loop {
            match framing.next(&mut received)? {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::Trailers(fields) => trailers = fields,
                Piece::Over => {
                    assert!(framing.is_over());
                    sent.for_each(|rest| received.extend_from_slice(rest));
                    return Ok((data, trailers, received));
                }
                Piece::Short => match sent.next() {
                    Some(more) => received.extend_from_slice(more),
                    None => return Ok((data, trailers, BytesMut::from("SHORT"))),
                },
            }
        }
    }

    const CHUNKED: Framing = Framing::Chunked(Chunk::Size);

    #[test]
    fn bodies_end_where_they_say_however_they_are_cut() {
        for (framing, sent, data, rest) in [
            (Framing::Length(5), "hello", "hello", ""),
            (Framing::Length(5), "hellomore", "hello", "more"),
            (Framing::Length(5), "hell", "hell", "SHORT"),
            (Framing::OVER, "more", "", "more"),
            (CHUNKED, "5\r\nhello\r\n0\r\n\r\nmore", "hello", "more"),
            (CHUNKED, "5\r\nhello\r\nA;x=\"y\"\r\n, world!!!\r\n000\r\n\r\n", "hello, world!!!", ""),
            (CHUNKED, "0\r\n\r\n", "", ""),
            (CHUNKED, "5 \r\nhello\r\n0\r\nx-sum: 1\r\n\r\n", "hello", ""),
            (CHUNKED, "5\r\nhello\r\n0\r\n", "hello", "SHORT"),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let (read, _, left) = read(framing, sent.as_bytes(), step).unwrap();
                assert_eq!((&read[..], &left[..]), (data.as_bytes(), rest.as_bytes()), "{sent:?} by {step}");
            }
        }
    }

    #[test]
    fn trailers_come_through() {
        let (_, trailers, _) = read(CHUNKED, b"0\r\ngrpc-status: 0\r\nX-Sum: a\r\n\r\n", 4).unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-sum"], "a");
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        let endless = format!("5;{}\r\nhello\r\n", "x".repeat(2 * LONGEST_LINE));
        for sent in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloXX0\r\n\r\n",
            "\r\nhello",
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5 5\r\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "10000000000000005\r\nhello\r\n",
            "0\r\nno colon\r\n\r\n",
            &endless,
        ] {
            for step in [1, 1000] {
                assert!(read(CHUNKED, sent.as_bytes(), step).is_err(), "{sent:?}");
            }
        }
    }
}
