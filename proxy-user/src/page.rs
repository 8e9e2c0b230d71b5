//! The pages that Weir serves itself. They are in memory before the first request comes: an answer of last resort
//! must not depend on a disk, a template engine or an upstream.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

/// The built-in maintenance page.
pub const MAINTENANCE_HTML: &str = include_str!("page/maintenance.html");

/// A page, cut at its placeholders so that filling it in is copying.
#[derive(Debug)]
pub struct Page {
    pub name: Arc<str>,
    pieces: Vec<Piece>,
    retry_after: HeaderValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Bytes),
    RequestId,
    RetryAfter,
}

/// What the client would rather read. Asked before the request's fields travel on to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taste {
    Html,
    Json,
    /// gRPC clients read the outcome from a header and take everything else for a broken transport.
    Grpc,
}

impl Page {
    /// `html` may hold the placeholders `{{request_id}}` and `{{retry_after}}` (whole seconds).
    pub fn new(name: Arc<str>, html: &Bytes, retry_after: Duration) -> Self {
        Self { name, pieces: cut(html), retry_after: HeaderValue::from(retry_after.as_secs()) }
    }

    /// The maintenance answer: 503 (a CDN replaces the bodies of 502 and 504), never stored, with the time after
    /// which to try again.
    pub fn answer(&self, taste: Taste, request_id: &HeaderValue) -> Response<Bytes> {
        let (status, content_type, body) = match taste {
            Taste::Html => {
                (StatusCode::SERVICE_UNAVAILABLE, "text/html; charset=utf-8", self.html(request_id))
            }
            Taste::Json => {
                (StatusCode::SERVICE_UNAVAILABLE, "application/problem+json", self.problem(request_id))
            }
            Taste::Grpc => (StatusCode::OK, "application/grpc", Bytes::new()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::RETRY_AFTER, self.retry_after.clone());
        headers.insert(crate::identity::REQUEST_ID, request_id.clone());
        if content_type == "application/grpc" {
            // 14 is UNAVAILABLE in gRPC's status codes.
            headers.insert("grpc-status", HeaderValue::from_static("14"));
            headers.insert("grpc-message", HeaderValue::from_static("no server is available"));
        }
        response
    }

    fn html(&self, request_id: &HeaderValue) -> Bytes {
        let mut html = BytesMut::with_capacity(8 * 1024);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => html.extend_from_slice(text),
                Piece::RequestId => escape_into(request_id.as_bytes(), &mut html),
                Piece::RetryAfter => html.extend_from_slice(self.retry_after.as_bytes()),
            }
        }
        html.freeze()
    }

    /// A problem document (RFC 9457).
    fn problem(&self, request_id: &HeaderValue) -> Bytes {
        serde_json::json!({
            "title": "Service unavailable",
            "status": 503,
            "detail": "No server is available to answer this request. Please try again later.",
            "request_id": String::from_utf8_lossy(request_id.as_bytes()),
        })
        .to_string()
        .into()
    }
}

/// A short plain answer of Weir's own, for requests that lead nowhere.
pub fn plain(status: StatusCode, request_id: &HeaderValue) -> Response<Bytes> {
    let text = format!("{status}\n");
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(crate::identity::REQUEST_ID, request_id.clone());
    response
}

impl Taste {
    pub fn of(asked: &HeaderMap) -> Self {
        let holds = |name: header::HeaderName, part: &str| {
            asked.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(part))
        };
        if holds(header::CONTENT_TYPE, "application/grpc") {
            Self::Grpc
        } else if holds(header::ACCEPT, "json") && !holds(header::ACCEPT, "text/html") {
            Self::Json
        } else {
            Self::Html
        }
    }
}

fn cut(html: &Bytes) -> Vec<Piece> {
    let placeholders =
        [(&b"{{request_id}}"[..], Piece::RequestId), (&b"{{retry_after}}"[..], Piece::RetryAfter)];
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < html.len() {
        match placeholders.iter().find(|(name, _)| html[at..].starts_with(name)) {
            Some((name, piece)) => {
                pieces.push(Piece::Text(html.slice(from..at)));
                pieces.push(piece.clone());
                at += name.len();
                from = at;
            }
            None => at += 1,
        }
    }
    pieces.push(Piece::Text(html.slice(from..)));
    pieces
}

/// A request id may come from a peer: on a page it is text, never markup.
fn escape_into(text: &[u8], html: &mut BytesMut) {
    for &byte in text {
        match byte {
            b'<' => html.extend_from_slice(b"&lt;"),
            b'>' => html.extend_from_slice(b"&gt;"),
            b'&' => html.extend_from_slice(b"&amp;"),
            b'"' => html.extend_from_slice(b"&quot;"),
            b'\'' => html.extend_from_slice(b"&#39;"),
            byte => html.extend_from_slice(&[byte]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: HeaderValue = HeaderValue::from_static("<id>&1");

    fn page(html: &'static str) -> Page {
        Page::new("maintenance".into(), &Bytes::from_static(html.as_bytes()), Duration::from_secs(30))
    }

    fn asked(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn placeholders_are_filled_in_and_escaped() {
        let html = page("a {{request_id}} b {{retry_after}}{{x}}").html(&ID);
        assert_eq!(html, "a &lt;id&gt;&amp;1 b 30{{x}}");
    }

    #[test]
    fn the_answer_is_never_stored_and_says_when_to_come_back() {
        let answer = page("x").answer(Taste::Html, &ID);
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "30");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()["x-request-id"], ID);
    }

    #[test]
    fn browsers_get_html_programs_get_json_and_grpc_gets_its_status() {
        for (header, value, expected) in [
            (header::ACCEPT, "text/html,application/json;q=0.9", "text/html; charset=utf-8"),
            (header::ACCEPT, "*/*", "text/html; charset=utf-8"),
            (header::ACCEPT, "application/json", "application/problem+json"),
            (header::ACCEPT, "application/vnd.api+json", "application/problem+json"),
            (header::CONTENT_TYPE, "application/grpc+proto", "application/grpc"),
        ] {
            let answer = page("x").answer(Taste::of(&asked(header, value)), &ID);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], expected, "{value}");
        }
        let grpc = page("x").answer(Taste::Grpc, &ID);
        assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &"14".parse().unwrap()));
    }

    #[test]
    fn the_built_in_page_tells_the_request_id() {
        assert!(MAINTENANCE_HTML.contains("{{request_id}}"));
    }
}
