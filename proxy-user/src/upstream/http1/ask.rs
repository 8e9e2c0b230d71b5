//! A request on its way to a server: the bytes of its head, and its body in the framing that the head announces.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Fault;
use crate::{body::RequestBody, upstream::stream::Stream};

/// Pieces of a body below this size are copied behind what is to be sent anyway: cheaper than one more system call.
const COPIED: usize = 4 * 1024;

/// What is still to be sent of a request.
#[derive(Debug, Default)]
pub struct Asking {
    /// Goes first: the head, the lines around chunks, and small pieces of the body.
    before: BytesMut,
    /// A piece of the body.
    data: Bytes,
    /// The rest of it.
    body: Option<(RequestBody, Announced)>,
    /// Bytes that went out since the request began.
    pub sent: u64,
    /// Some of them may still wait in TLS's own buffer.
    unflushed: bool,
}

/// What the head says of the body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

impl Asking {
    /// Begins with a request. What is left of the one before is dropped.
    pub fn begin(&mut self, head: &Parts, body: RequestBody) {
        self.before.clear();
        self.data = Bytes::new();
        self.sent = 0;
        self.body = None;
        let announced = write_head(&mut self.before, head, body.size_hint().exact());
        if !body.is_empty() {
            self.body = Some((body, announced));
        }
    }

    /// The body, if nothing of the request has been sent.
    pub fn take_back(&mut self) -> Option<RequestBody> {
        (self.sent == 0).then(|| self.body.take().map_or(RequestBody::Empty, |(body, _)| body))
    }

    /// Whether all of it has been sent.
    pub fn is_over(&self) -> bool {
        self.body.is_none() && self.data.is_empty() && self.before.is_empty() && !self.unflushed
    }

    /// Gives up on what is left: the server doesn't read it.
    pub fn abandon(&mut self) {
        *self = Self { sent: self.sent, ..Self::default() };
    }

    /// Sends as much as the server takes and the client has sent.
    pub fn poll_send(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            while !self.before.is_empty() {
                let sent = ready!(Pin::new(&mut *stream).poll_write(cx, &self.before)).map_err(Fault::Io)?;
                self.count(sent)?;
                self.before.advance(sent);
            }
            while !self.data.is_empty() {
                let sent = ready!(Pin::new(&mut *stream).poll_write(cx, &self.data)).map_err(Fault::Io)?;
                self.count(sent)?;
                self.data.advance(sent);
            }
            let Some((body, announced)) = &mut self.body else {
                return self.poll_flush(stream, cx);
            };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                // The client is slower than the server: what there is shall not wait for it.
                ready!(self.poll_flush(stream, cx))?;
                return Poll::Pending;
            };
            match (frame, announced) {
                (Some(Err(fault)), _) => return Poll::Ready(Err(Fault::Client(fault))),
                (Some(Ok(frame)), announced) => match frame.into_data() {
                    Ok(data) => Self::queue(&mut self.before, &mut self.data, data, announced)?,
                    Err(frame) => {
                        if *announced == Announced::Chunked {
                            end_chunks(&mut self.before, frame.trailers_ref());
                            self.body = None;
                        }
                    }
                },
                (None, Announced::Length(0)) => self.body = None,
                (None, Announced::Length(_)) => return Poll::Ready(Err(Fault::WrongLength)),
                (None, Announced::Chunked) => {
                    end_chunks(&mut self.before, None);
                    self.body = None;
                }
            }
        }
    }

    fn count(&mut self, sent: usize) -> Result<(), Fault> {
        if sent == 0 {
            return Err(Fault::Io(io::ErrorKind::WriteZero.into()));
        }
        self.sent += sent as u64;
        self.unflushed = true;
        Ok(())
    }

    fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx)).map_err(Fault::Io)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn queue(
        before: &mut BytesMut,
        behind: &mut Bytes,
        data: Bytes,
        announced: &mut Announced,
    ) -> Result<(), Fault> {
        let is_small = data.len() < COPIED;
        match announced {
            Announced::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Fault::WrongLength)?;
                if is_small {
                    before.extend_from_slice(&data);
                } else {
                    *behind = data;
                }
            }
            // An empty chunk would end the body.
            Announced::Chunked if data.is_empty() => {}
            Announced::Chunked => {
                before.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                before.extend_from_slice(&data);
                before.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

/// `exact`: the length of its body, if that is known before it has been read.
fn write_head(out: &mut BytesMut, head: &Parts, exact: Option<u64>) -> Announced {
    out.reserve(1024);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut said: Option<&HeaderValue> = None;
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            said.get_or_insert(value);
        }
        field(out, name.as_str(), value);
    }
    let is_said = said.is_some();
    let length = said.and_then(|length| length.to_str().ok()?.parse().ok()).or(exact);
    let announced = length.map_or(Announced::Chunked, Announced::Length);
    match announced {
        Announced::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // RFC 9110 §8.6: without content, the length is told where the method has a meaning for content.
        Announced::Length(0)
            if is_said || !matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {}
        Announced::Length(_) if is_said => {}
        Announced::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    announced
}

pub fn field(out: &mut impl BufMut, name: &str, value: &HeaderValue) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// The last chunk, and the trailer fields behind it. Those that frame or route a message have no place there (RFC 9110
/// §6.5.1).
pub fn end_chunks(out: &mut impl BufMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        let frames_or_routes = [
            header::TRANSFER_ENCODING,
            header::CONTENT_LENGTH,
            header::HOST,
            header::CONNECTION,
            header::TRAILER,
            header::TE,
            header::UPGRADE,
        ];
        if !frames_or_routes.contains(name) {
            field(out, name.as_str(), value);
        }
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: Method, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = "/a?b".parse().unwrap();
        for &(name, value) in fields {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    fn written(head: &Parts) -> String {
        let mut asking = Asking::default();
        asking.begin(head, RequestBody::Empty);
        String::from_utf8(asking.before.to_vec()).unwrap()
    }

    #[test]
    fn a_head_is_written_as_it_is_spoken() {
        assert_eq!(
            written(&head(Method::GET, &[("host", "a.example"), ("x", "1"), ("x", "2")])),
            "GET /a?b HTTP/1.1\r\nhost: a.example\r\nx: 1\r\nx: 2\r\n\r\n"
        );
    }

    #[test]
    fn no_content_is_announced_where_content_is_expected() {
        assert_eq!(written(&head(Method::POST, &[])), "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            written(&head(Method::POST, &[("content-length", "0")])),
            "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
        );
    }

    #[test]
    fn trailers_that_frame_or_route_are_left_out() {
        let trailers = HeaderMap::from_iter([
            (header::CONTENT_LENGTH, HeaderValue::from_static("5")),
            (header::ETAG, HeaderValue::from_static("x")),
        ]);
        let mut out = BytesMut::new();
        end_chunks(&mut out, Some(&trailers));
        assert_eq!(&out[..], b"0\r\netag: x\r\n\r\n");
    }
}
