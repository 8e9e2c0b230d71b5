//! The head of an answer as HTTP/1 writes it, and how the end of its body is told (RFC 9112 §6). Pure.

use http::{HeaderValue, StatusCode, header, response};
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;

use crate::{connection::date, upstream::http1::field};

/// How a client asked, as far as that matters for how it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub http_11: bool,
    pub is_head: bool,
    /// It takes trailers.
    pub trailers: bool,
    /// It may ask again over this connection.
    pub keep_alive: bool,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, whatever its length is said to be.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Writes an answer's head. Says how its body goes on, and whether the connection does behind it.
pub fn write(
    out: &mut Vec<u8>,
    head: &response::Parts,
    body: Option<&SizeHint>,
    manner: Manner,
) -> (Framing, bool) {
    status_line(out, head, manner.http_11);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let (mut dated, mut said, mut says_close) = (false, None, false);
    for (name, value) in &head.headers {
        match *name {
            header::CONTENT_LENGTH => {
                said.get_or_insert(value);
                continue;
            }
            header::TRANSFER_ENCODING => continue,
            header::CONNECTION if !switches => {
                says_close |= value.as_bytes().eq_ignore_ascii_case(b"close");
                continue;
            }
            header::DATE => dated = true,
            _ => {}
        }
        field(out, name.as_str(), value);
    }
    let (framing, length) = framing(head.status, said, body, manner);
    let keep_alive = manner.keep_alive && framing != Framing::UntilClose && !says_close;
    match (framing, length) {
        (Framing::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (_, Some(length)) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        _ => {}
    }
    if !keep_alive && !switches {
        out.extend_from_slice(b"connection: close\r\n");
    } else if !manner.http_11 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !dated && !head.status.is_informational() {
        field(out, header::DATE.as_str(), &date::now());
    }
    out.extend_from_slice(b"\r\n");
    (framing, keep_alive)
}

/// Writes a head that comes before the answer's: it has no body, and says nothing of the connection.
pub fn write_early(out: &mut Vec<u8>, head: &response::Parts) {
    status_line(out, head, true);
    for (name, value) in &head.headers {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION) {
            field(out, name.as_str(), value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, head: &response::Parts, http_11: bool) {
    let version: &[u8] = if http_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    out.extend_from_slice(version);
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let said = head.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    let reason = said.or_else(|| head.status.canonical_reason().map(str::as_bytes));
    out.extend_from_slice(reason.unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Also the length that the head tells. `said`: what a server says of it. `body`: `None` where there is none to send.
fn framing(
    status: StatusCode,
    said: Option<&HeaderValue>,
    body: Option<&SizeHint>,
    manner: Manner,
) -> (Framing, Option<u64>) {
    let said = said.and_then(|length| length.to_str().ok()?.parse().ok());
    let exact = body.map_or(Some(0), SizeHint::exact);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return (Framing::None, None);
    }
    if manner.is_head || status == StatusCode::NOT_MODIFIED {
        // What a GET would get, where that is known: of a server's answer by its own word.
        return (Framing::None, said.or(exact.filter(|length| *length > 0)));
    }
    match exact.or(said) {
        Some(length) => (Framing::Length(length), Some(length)),
        None if manner.http_11 => (Framing::Chunked, None),
        None => (Framing::UntilClose, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};

    const MANNER: Manner = Manner { http_11: true, is_head: false, trailers: false, keep_alive: true };

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("date", HeaderValue::from_static("then"));
        for &(name, value) in fields {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response.into_parts().0
    }

    fn written(head: &response::Parts, body: Option<u64>, manner: Manner) -> (String, Framing, bool) {
        let hint = body.map_or_else(SizeHint::default, SizeHint::with_exact);
        let mut out = Vec::new();
        let (framing, keep_alive) = write(&mut out, head, Some(&hint), manner);
        (String::from_utf8(out).unwrap().replace("date: then\r\n", ""), framing, keep_alive)
    }

    #[test]
    fn an_answer_tells_its_end_as_its_client_understands_it() {
        let http_10 = Manner { http_11: false, keep_alive: false, ..MANNER };
        let kept = Manner { http_11: false, ..MANNER };
        let head_asked = Manner { is_head: true, ..MANNER };
        for (status, fields, body, manner, expected, framing, keeps) in [
            (200, &[][..], Some(5), MANNER, "content-length: 5\r\n", Framing::Length(5), true),
            (200, &[], Some(0), MANNER, "content-length: 0\r\n", Framing::Length(0), true),
            (200, &[], None, MANNER, "transfer-encoding: chunked\r\n", Framing::Chunked, true),
            (
                200,
                &[("content-length", "7"), ("content-length", "7")],
                None,
                MANNER,
                "content-length: 7\r\n",
                Framing::Length(7),
                true,
            ),
            (200, &[], None, http_10, "connection: close\r\n", Framing::UntilClose, false),
            (200, &[], None, kept, "connection: close\r\n", Framing::UntilClose, false),
            (
                200,
                &[],
                Some(1),
                kept,
                "content-length: 1\r\nconnection: keep-alive\r\n",
                Framing::Length(1),
                true,
            ),
            (
                200,
                &[("content-length", "9")],
                Some(0),
                head_asked,
                "content-length: 9\r\n",
                Framing::None,
                true,
            ),
            (200, &[], Some(9), head_asked, "content-length: 9\r\n", Framing::None, true),
            (200, &[], Some(0), head_asked, "", Framing::None, true),
            (304, &[("content-length", "9")], Some(0), MANNER, "content-length: 9\r\n", Framing::None, true),
            (304, &[], Some(0), MANNER, "", Framing::None, true),
            (204, &[("content-length", "9")], Some(0), MANNER, "", Framing::None, true),
            (
                421,
                &[("connection", "close")],
                Some(0),
                MANNER,
                "content-length: 0\r\nconnection: close\r\n",
                Framing::Length(0),
                false,
            ),
            (
                101,
                &[("connection", "upgrade"), ("upgrade", "x")],
                Some(0),
                MANNER,
                "connection: upgrade\r\nupgrade: x\r\n",
                Framing::None,
                true,
            ),
        ] {
            let head = head(status, fields);
            let (text, told, kept) = written(&head, body, manner);
            let reason = head.status.canonical_reason().unwrap();
            let version = if manner.http_11 { "1.1" } else { "1.0" };
            assert_eq!(text, format!("HTTP/{version} {status} {reason}\r\n{expected}\r\n"));
            assert_eq!((told, kept), (framing, keeps), "{text}");
        }
    }

    #[test]
    fn an_early_head_says_nothing_of_lengths() {
        let mut out = Vec::new();
        write_early(
            &mut out,
            &head(103, &[("link", "</a>"), ("content-length", "5"), ("connection", "close")]),
        );
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\ndate: then\r\nlink: </a>\r\n\r\n");
    }

    #[test]
    fn a_servers_own_words_for_a_status_are_passed_on_and_a_date_is_made_where_it_has_none() {
        let mut head = head(200, &[]);
        head.headers.remove("date");
        head.extensions.insert(ReasonPhrase::from_static(b"Fine"));
        let (text, ..) = written(&head, Some(0), MANNER);
        assert!(
            text.starts_with("HTTP/1.1 200 Fine\r\n") && text.contains("date: ") && text.contains(" GMT\r\n")
        );
    }
}
