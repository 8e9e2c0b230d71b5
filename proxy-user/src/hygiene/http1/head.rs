//! One head of HTTP/1: its request line and fields, or the fields of a trailer.

use super::HeadLimits;
use crate::hygiene::{Fault, target};

/// A client may send so many empty lines before a request (RFC 9112 §2.2).
const EMPTY_LINES: usize = 4;

/// A head as far as it has come. Offsets are from its first byte.
#[derive(Debug, Default)]
pub struct Head {
    /// Where the line begins that is being read.
    line: usize,
    /// So far there is no control byte in that line.
    seen: usize,
    fields: usize,
    empty_lines: usize,
    /// Where method and target end, once the request line is known to be good.
    request_line: Option<RequestLine>,
    trailers: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

#[derive(Debug, Clone, Copy)]
struct RequestLine {
    begin: usize,
    method_end: usize,
    target_end: usize,
    http_11: bool,
}

impl Head {
    pub fn of_trailers() -> Self {
        Self { trailers: true, ..Self::default() }
    }

    /// Whether nothing of it has been shown.
    pub fn is_untouched(&self) -> bool {
        self.seen == 0
    }

    pub fn length(&self) -> u64 {
        self.length.unwrap_or(0)
    }

    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    pub fn asks_to_switch(&self) -> bool {
        self.upgrade && self.connection_upgrade && self.request_line.is_some_and(|line| line.http_11)
    }

    pub fn request_line<'a>(&self, head: &'a [u8]) -> Option<(&'a [u8], &'a [u8], bool)> {
        let line = self.request_line?;
        Some((
            head.get(line.begin..line.method_end)?,
            head.get(line.method_end + 1..line.target_end)?,
            line.http_11,
        ))
    }

    /// Looks at the head in `bytes`, which begin with it and may be longer or shorter; says where it ends, once it does.
    pub fn read(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Fault> {
        loop {
            let Some(end) = control_byte(bytes, self.seen) else {
                self.seen = bytes.len();
                return self.not_whole(bytes.len(), limits);
            };
            match (bytes[end], bytes.get(end + 1)) {
                (b'\r', Some(b'\n')) => {}
                (b'\r', None) => {
                    self.seen = end;
                    return self.not_whole(bytes.len(), limits);
                }
                (b'\r' | b'\n', _) => return Err(Fault::LineEnd),
                _ => return Err(Fault::ControlByte),
            }
            let line = self.line;
            (self.line, self.seen) = (end + 2, end + 2);
            if self.line > limits.size {
                return Err(self.too_large());
            }
            if line == end {
                if self.trailers || self.request_line.is_some() {
                    return self.whole().map(|()| Some(self.line));
                }
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES {
                    return Err(Fault::RequestLine);
                }
            } else if self.trailers || self.request_line.is_some() {
                self.fields += 1;
                if self.fields > limits.fields {
                    return Err(Fault::TooManyFields);
                }
                self.field(&bytes[line..end])?;
            } else {
                self.request_line = Some(request_line(&bytes[..end], line)?);
            }
        }
    }

    fn not_whole(&self, length: usize, limits: HeadLimits) -> Result<Option<usize>, Fault> {
        if length > limits.size { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> Fault {
        if self.request_line.is_some() || self.trailers { Fault::HeadTooLarge } else { Fault::TargetTooLong }
    }

    fn whole(&self) -> Result<(), Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Fault::TwoLengths),
            // HTTP/1.0 knows no chunks: whoever is behind it may take them for the body.
            (true, None) if !self.request_line.is_some_and(|line| line.http_11) => {
                Err(Fault::TransferEncoding)
            }
            _ => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some(colon) = line.iter().position(|&byte| !is_token(byte)) else { return Err(Fault::FieldName) };
        if colon == 0 && matches!(line[0], b' ' | b'\t') {
            return Err(Fault::FoldedLine);
        }
        if colon == 0 || line[colon] != b':' {
            return Err(Fault::FieldName);
        }
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // The length tells most names apart from those that matter.
        match colon {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |= value
                    .split(|&byte| byte == b',')
                    .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = value.trim_ascii();
        // The framing of a message stands in its head, never behind it.
        let misplaced = self.trailers || self.length.is_some();
        if misplaced || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::ContentLength);
        }
        let add = |length: u64, digit: &u8| length.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        // hyper's own two marks for lengths are at the very end of the range.
        let length = digits.iter().try_fold(0, add).filter(|length| *length <= i64::MAX as u64);
        self.length = Some(length.ok_or(Fault::ContentLength)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.trailers || self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }
}

/// `METHOD target HTTP/1.x`, in the line that begins at `begin`.
fn request_line(bytes: &[u8], begin: usize) -> Result<RequestLine, Fault> {
    let line = &bytes[begin..];
    let method = line.iter().position(|&byte| !is_token(byte)).ok_or(Fault::RequestLine)?;
    if method == 0 || line[method] != b' ' {
        return Err(Fault::RequestLine);
    }
    let rest = &line[method + 1..];
    let target = rest.iter().position(|&byte| byte == b' ').ok_or(Fault::RequestLine)?;
    let http_11 = match &rest[target + 1..] {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', digits @ ..]
            if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') =>
        {
            return Err(Fault::Version);
        }
        _ => return Err(Fault::RequestLine),
    };
    target::judge_written(&line[..method], &rest[..target])?;
    let method_end = begin + method;
    Ok(RequestLine { begin, method_end, target_end: method_end + 1 + target, http_11 })
}

/// The first control byte from `from` on, other than a tab. Eight bytes at a time: every byte of every head passes here.
fn control_byte(bytes: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let mut at = from;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        let delete = word ^ (ONES * 0x7f);
        // A byte's high bit is set where it is below 0x20, or 0x7f. Borrows only spoil bytes above the first hit.
        let hits = ((word.wrapping_sub(ONES * 0x20) & !word) | (delete.wrapping_sub(ONES) & !delete)) & HIGH;
        if hits == 0 {
            at += 8;
            continue;
        }
        at += (hits.trailing_zeros() / 8) as usize;
        if bytes[at] != b'\t' {
            return Some(at);
        }
        at += 1;
    }
    let control = |&byte: &u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
    bytes.get(at..)?.iter().position(control).map(|offset| at + offset)
}

fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// What names and methods consist of (RFC 9110 §5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};
