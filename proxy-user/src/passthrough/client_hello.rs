//! Reads the name that a client asks for out of its TLS hello, and nothing else. Pure: it is given what came so far.
//!
//! A hello may come in any number of segments, and be spread over any number of records (RFC 8446 §5.1); with post-quantum keys
//! it doesn't fit into one segment, and with many pre-shared keys not into one record. Whatever isn't needed to find the
//! name is stepped over by its length alone, so that values made up to keep us flexible (GREASE, RFC 8701) and extensions of
//! times to come are nothing special. What follows the hello is not looked at.
//!
//! With encrypted client hello the name is the outer one, of the front that clients know: it is all that there is to see.

use std::net::IpAddr;

/// The longest hello that is read, with all that it is wrapped in.
pub const LONGEST: usize = 64 * 1024;

/// The most that a record holds (RFC 8446 §5.1).
const LONGEST_RECORD: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Extensions that say something here.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// What is known of a connection from its hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// In lower case, without a root dot. `None`: it names no host.
    pub name: Option<Box<str>>,
    /// It is the outer one of an encrypted hello, or pretends to be.
    pub has_inner: bool,
    /// The client is an ACME authority that asks for a proof (RFC 8737), and nothing else.
    pub wants_proof: bool,
}

/// How far one has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Whole(Hello),
    /// At least so many more bytes are needed: never none.
    More(usize),
}

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    #[error("it does not begin like TLS")]
    NotTls,
    #[error("its lengths contradict each other, or say what TLS does not allow")]
    Malformed,
    #[error("it is longer than 64 KiB")]
    TooLong,
}

/// Reads one hello, however it comes.
#[derive(Debug, Default)]
pub struct Reader {
    /// Of what came so far, so much has been looked at.
    looked: usize,
    /// So much of the record is still to come.
    left: usize,
    /// What the records hold.
    message: Vec<u8>,
}

// === impl Reader ===

impl Reader {
    /// `received` is all that came so far, from the connection's first byte on; the next call gets it again, and more.
    ///
    /// # Errors
    /// As soon as it is clear that it won't become a hello.
    pub fn read(&mut self, received: &[u8]) -> Result<Read, Unreadable> {
        loop {
            let new = received.get(self.looked..).unwrap_or_default();
            if self.left > 0 {
                let take = self.left.min(new.len());
                self.message.extend_from_slice(&new[..take]);
                self.left -= take;
                self.looked += take;
                if let Some(whole) = whole(&self.message)? {
                    return hello(whole).map(Read::Whole);
                }
                if self.left > 0 {
                    return Ok(Read::More(self.left));
                }
                continue;
            }
            // Whether it is too long depends on what its records say, and not on how it is cut.
            if self.looked + 5 > LONGEST {
                return Err(Unreadable::TooLong);
            }
            let [kind, major, _, high, low, ..] = *new else {
                // What can't become a record is told at its first bytes: whoever speaks another protocol waits for an answer.
                let known = [HANDSHAKE, 3];
                let begins_well = new.iter().zip(known).all(|(byte, known)| *byte == known);
                return if begins_well { Ok(Read::More(5 - new.len())) } else { Err(self.no_record()) };
            };
            if (kind, major) != (HANDSHAKE, 3) {
                return Err(self.no_record());
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            // A handshake is never in empty pieces.
            if length == 0 || length > LONGEST_RECORD {
                return Err(self.no_record());
            }
            if self.looked + 5 + length > LONGEST {
                return Err(Unreadable::TooLong);
            }
            self.looked += 5;
            self.left = length;
        }
    }

    /// Within a hello it is a broken one; at the very beginning it is something else.
    fn no_record(&self) -> Unreadable {
        if self.looked == 0 { Unreadable::NotTls } else { Unreadable::Malformed }
    }
}

/// The hello's body, if all of it is there.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Unreadable::Malformed);
    }
    let Some(([_, length @ ..], body)) = message.split_first_chunk::<4>() else { return Ok(None) };
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > LONGEST {
        return Err(Unreadable::TooLong);
    }
    Ok(body.get(..length))
}

/// RFC 8446 §4.1.2; so it has been since TLS 1.0.
fn hello(body: &[u8]) -> Result<Hello, Unreadable> {
    let mut rest = Bytes(body);
    rest.take(2 + 32)?;
    let session = rest.vector(1)?;
    let suites = rest.vector(2)?;
    let compression = rest.vector(1)?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compression.is_empty() {
        return Err(Unreadable::Malformed);
    }
    let mut hello = Hello::default();
    // The oldest clients have no extensions at all.
    if rest.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Bytes(rest.vector(2)?);
    let mut named = false;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let value = extensions.vector(2)?;
        match kind {
            // Of two names each reader would choose another.
            SERVER_NAME if std::mem::replace(&mut named, true) => return Err(Unreadable::Malformed),
            SERVER_NAME => hello.name = server_name(value)?,
            ALPN => hello.wants_proof = is_one_of_acme(value)?,
            ENCRYPTED_HELLO => hello.has_inner = true,
            _ => {}
        }
    }
    if rest.0.is_empty() { Ok(hello) } else { Err(Unreadable::Malformed) }
}

/// RFC 6066 §3. No other kind of name was ever made.
fn server_name(value: &[u8]) -> Result<Option<Box<str>>, Unreadable> {
    let mut value = Bytes(value);
    let mut list = Bytes(value.vector(2)?);
    if list.0.is_empty() || !value.0.is_empty() {
        return Err(Unreadable::Malformed);
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.vector(2)?;
        match (kind, found) {
            (0, Some(_)) => return Err(Unreadable::Malformed),
            (0, None) => found = Some(name),
            _ => {}
        }
    }
    Ok(found.and_then(host))
}

/// As routes have it. What is no name of a host is taken as if there were none.
fn host(name: &[u8]) -> Option<Box<str>> {
    let name = std::str::from_utf8(name.strip_suffix(b".").unwrap_or(name)).ok()?;
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let sound = name.len() <= 253 && name.split('.').all(label) && name.parse::<IpAddr>().is_err();
    sound.then(|| name.to_ascii_lowercase().into())
}

/// RFC 7301 §3.1: whether the list has this one protocol.
fn is_one_of_acme(value: &[u8]) -> Result<bool, Unreadable> {
    let mut value = Bytes(value);
    let mut list = Bytes(value.vector(2)?);
    let first = list.vector(1)?;
    Ok(first == crate::acme::ALPN && list.0.is_empty() && value.0.is_empty())
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Unreadable> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// With its length in front, in so many bytes.
    fn vector(&mut self, of: usize) -> Result<&'a [u8], Unreadable> {
        let length = self.take(of)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length)
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// In a word, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
        }
    }
}

#[cfg(test)]
mod tests;
