//! WebSockets with a server that speaks HTTP/2 (RFC 8441): what is asked of it, and what its answer means in the words of
//! HTTP/1, in which the rest of the way speaks.
//!
//! Whether it takes them is in its first frame. So whoever asks over a new connection waits for that frame.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request, response};
use hyper::ext::Protocol;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{body::RequestBody, upstream::stream};

const WEBSOCKET: &str = "websocket";

/// What a server joins to a key before it hashes it (RFC 6455, section 1.3).
const JOINED: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request wants to go on as a WebSocket.
pub fn is_wanted(head: &request::Parts) -> bool {
    let wanted = head.headers.get(header::UPGRADE);
    wanted.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Makes of a request for a WebSocket the one that HTTP/2 has for it.
pub fn ask(request: &mut Request<RequestBody>) {
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
}

/// Makes of the server's consent what a server of HTTP/1 would have said to a client with this key.
pub fn granted(head: &mut response::Parts, asked: &HeaderMap) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    if let Some(key) = asked.get(header::SEC_WEBSOCKET_KEY)
        && let Ok(value) = HeaderValue::try_from(accept(key.as_bytes()))
    {
        head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
}

fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, JOINED].concat()))
}

/// Whether anything has come from a server yet.
#[derive(Debug, Clone, Default)]
pub struct Heard(Rc<(Cell<bool>, Notify)>);

/// A server's stream that tells when it has said something.
#[derive(Debug)]
pub struct Listening {
    pub stream: stream::Stream,
    pub heard: Heard,
}

// === impl Heard ===

impl Heard {
    /// Resolves when something has come, and was understood: whoever reads looks at all of it before anybody else runs.
    pub async fn anything(&self) {
        let (heard, news) = &*self.0;
        while !heard.get() {
            news.notified().await;
        }
    }

    fn something(&self) {
        let (heard, news) = &*self.0;
        if !heard.replace(true) {
            news.notify_waiters();
        }
    }
}

// === impl Listening ===

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        // Its end is news too: nothing more is worth waiting for.
        self.heard.something();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_standard_has_it() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_websockets_are_asked_for() {
        for (value, wanted) in [("websocket", true), ("WebSocket", true), ("echo", false)] {
            let request = Request::get("/").header(header::UPGRADE, value).body(()).unwrap();
            assert_eq!(is_wanted(&request.into_parts().0), wanted, "{value}");
        }
    }
}
