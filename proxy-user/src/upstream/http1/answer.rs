//! The head of a server's answer: its fields, and how long its body is. Pure: over what was received.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, response::Parts,
};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use super::{
    Malformed,
    framing::{Chunk, Framing},
};

/// A head may be this long, in bytes: twice what most servers can be made to send.
const LONGEST_HEAD: usize = 128 * 1024;

/// A head may have so many fields.
const MOST_FIELDS: usize = 128;

/// Fields that are put to an answer on its way: a map that has room for them need not grow.
const TO_COME: usize = 2;

/// The head of an answer, and what it says of what follows.
#[derive(Debug)]
pub struct Head {
    pub parts: Parts,
    pub framing: Framing,
    /// Whether the server takes another request over this connection.
    pub keeps_alive: bool,
}

/// Takes a head out of `received` once it is whole. `searched` is how much of it is known not to end a head; it begins
/// with 0, and is 0 again afterwards.
///
/// # Errors
/// When it is no head of an answer in HTTP/1, or one that could be understood in two ways.
pub fn take(
    received: &mut BytesMut,
    searched: &mut usize,
    asked: &Method,
) -> Result<Option<Head>, Malformed> {
    let Some(length) = end(received, *searched) else {
        *searched = received.len().saturating_sub(2);
        return if received.len() < LONGEST_HEAD { Ok(None) } else { Err(Malformed::TooLong) };
    };
    *searched = 0;
    parse(&received.split_to(length).freeze(), asked).map(Some)
}

/// Behind the empty line that ends a head.
fn end(received: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &received[from..]).find_map(|at| {
        let behind = from + at + 1;
        match received[behind..] {
            [b'\n', ..] => Some(behind + 1),
            [b'\r', b'\n', ..] => Some(behind + 2),
            _ => None,
        }
    })
}

fn parse(head: &Bytes, asked: &Method) -> Result<Head, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut answer, head, &mut fields)
        .map_err(Malformed::Head)?;
    let (httparse::Status::Complete(_), Some(version), Some(code)) = (parsed, answer.version, answer.code)
    else {
        // It has an empty line, but not where a head has one.
        return Err(Malformed::Head(httparse::Error::NewLine));
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Status(code))?;
    let mut parts = Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = answer.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        parts.extensions.insert(reason);
    }
    parts.headers = HeaderMap::with_capacity(answer.headers.len() + TO_COME);
    let mut said = Said::default();
    for field in &*answer.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let value = value.map_err(|_| Malformed::Field)?;
        if !said.is_all_of(&name, &value)? {
            parts.headers.append(name, value);
        }
    }
    let framing = said.framing(&parts, asked)?;
    let keeps_alive = framing != Framing::UntilClose && said.keeps_alive(parts.version);
    Ok(Head { parts, framing, keeps_alive })
}

/// What a server says of the message and of the connection. Heard as its fields go by, since to ask a map of them for each
/// costs more.
#[derive(Debug, Default)]
struct Said {
    /// Content-Length, which may be said more than once if it is the same each time.
    length: Option<u64>,
    codings: usize,
    /// One of them is just `chunked`.
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    /// Takes note of a field. Whether that is all that there is to it: what says no more than whether the connection is kept
    /// goes no further.
    fn is_all_of(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Malformed> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = length(value).ok_or(Malformed::Length)?;
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return Err(Malformed::Length);
                }
            }
            header::TRANSFER_ENCODING => {
                self.codings += 1;
                self.chunked |= value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            header::CONNECTION => return Ok(self.is_all_of_connection(value.as_bytes())),
            _ => {}
        }
        Ok(false)
    }

    fn is_all_of_connection(&mut self, value: &[u8]) -> bool {
        let mut is_all = true;
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                is_all = false;
            }
        }
        is_all
    }

    /// RFC 9112 §6.3; what could be understood in two ways is refused.
    fn framing(&self, parts: &Parts, asked: &Method) -> Result<Framing, Malformed> {
        if self.codings > 0 && self.length.is_some() {
            return Err(Malformed::TwoLengths);
        }
        let is_known = self.codings == 1 && self.chunked && parts.version == Version::HTTP_11;
        if self.codings > 0 && !is_known {
            return Err(Malformed::Coding);
        }
        let is_without_body = *asked == Method::HEAD
            || parts.status.is_informational()
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if is_without_body => Framing::OVER,
            _ if self.chunked => Framing::Chunked(Chunk::Size),
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }

    fn keeps_alive(&self, version: Version) -> bool {
        if version == Version::HTTP_11 { !self.close } else { self.keep_alive }
    }
}

/// Digits, and nothing else.
fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sent: &str, asked: &Method) -> Result<Option<Head>, Malformed> {
        take(&mut BytesMut::from(sent), &mut 0, asked)
    }

    #[test]
    fn the_length_of_the_body_is_as_the_rfc_says() {
        const CHUNKED: Framing = Framing::Chunked(Chunk::Size);
        for (sent, asked, framing, keeps_alive) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD, Framing::OVER, true),
            ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", Method::GET, Framing::OVER, true),
            ("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", Method::GET, Framing::OVER, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Method::GET, CHUNKED, true),
            ("HTTP/1.1 200 OK\r\n\r\n", Method::GET, Framing::UntilClose, false),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Method::GET, Framing::OVER, true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Method::GET,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n",
                Method::GET,
                Framing::Length(5),
                false,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, Framing::Length(5), false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
                Method::GET,
                Framing::Length(5),
                true,
            ),
        ] {
            let head = taken(sent, &asked).unwrap().unwrap();
            assert_eq!((head.framing, head.keeps_alive), (framing, keeps_alive), "{sent:?}");
        }
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for sent in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "\n\n\n",
        ] {
            assert!(taken(sent, &Method::GET).is_err(), "{sent:?}");
        }
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole_and_what_follows_stays() {
        let sent = "HTTP/1.1 200 Fine\r\nA: b\r\nA: c\r\nContent-Length: 4\r\n\r\nbody";
        let (mut received, mut searched) = (BytesMut::new(), 0);
        for (at, byte) in sent.bytes().enumerate() {
            received.extend_from_slice(&[byte]);
            let Some(head) = take(&mut received, &mut searched, &Method::GET).unwrap() else { continue };
            assert_eq!(at + 1, sent.len() - 4);
            assert_eq!(head.parts.headers.get_all("a").iter().count(), 2);
            assert_eq!(head.parts.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Fine");
            received.extend_from_slice(b"body");
            break;
        }
        assert_eq!(&received[..], b"body");
        assert_eq!(searched, 0);
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(LONGEST_HEAD));
        assert!(matches!(taken(&endless, &Method::GET), Err(Malformed::TooLong)));
    }
}
