//! One head of HTTP/1: its request line and fields, or the fields of a trailer. One pass over its bytes judges them and
//! notes where each part lies; what is made of them is in [`super::parts`].

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
    /// The good ones.
    fields: Vec<Field>,
    empty_lines: usize,
    /// Where method and target end, once the request line is known to be good.
    request_line: Option<RequestLine>,
    trailers: bool,
    length: Option<u64>,
    chunked: bool,
    pub wishes: Wishes,
}

/// Where a field lies: its name from `begin` to `colon`, its value from behind that to `end`, with the space around it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub begin: u32,
    pub colon: u32,
    pub end: u32,
}

/// What a client wants of this connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// `Connection: close`
    pub close: bool,
    /// `Connection: keep-alive`
    pub keep_alive: bool,
    /// `Expect: 100-continue`
    pub expects: bool,
    /// `TE: trailers`
    pub trailers: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct RequestLine {
    pub begin: usize,
    pub method_end: usize,
    pub target_end: usize,
    pub http_11: bool,
}

/// So many fields have their place at once: most heads have fewer.
const USUAL_FIELDS: usize = 16;

impl Head {
    pub fn of_trailers() -> Self {
        Self { trailers: true, ..Self::default() }
    }

    pub fn length(&self) -> u64 {
        self.length.unwrap_or(0)
    }

    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn request_line(&self) -> Option<RequestLine> {
        self.request_line
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
                if self.fields.len() >= limits.fields {
                    return Err(Fault::TooManyFields);
                }
                let colon = self.field(&bytes[line..end])?;
                if self.fields.is_empty() {
                    self.fields.reserve(USUAL_FIELDS);
                }
                let place = |offset: usize| u32::try_from(offset).map_err(|_| Fault::HeadTooLarge);
                self.fields.push(Field {
                    begin: place(line)?,
                    colon: place(line + colon)?,
                    end: place(end)?,
                });
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

    /// Looks at a field; says where its colon is.
    fn field(&mut self, line: &[u8]) -> Result<usize, Fault> {
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
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value)?,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in options(value) {
                    self.wishes.close |= option.eq_ignore_ascii_case(b"close");
                    self.wishes.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.wishes.expects |= value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
            }
            2 if name.eq_ignore_ascii_case(b"te") => {
                self.wishes.trailers |= options(value).any(|option| option.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(colon)
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = value.trim_ascii();
        // The framing of a message stands in its head, never behind it.
        let misplaced = self.trailers || self.length.is_some();
        if misplaced || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::ContentLength);
        }
        let add = |length: u64, digit: &u8| length.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        // Beyond that, some reader behind may see a negative one.
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

/// The members of a list.
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
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
