//! HTTP/2 with a server: a connection that many requests share, and one of its streams.
//!
//! Unlike one of HTTP/1, a connection has a task of its own, since nobody who waits for an answer may stop the others.

pub mod tunnel;

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header, request, response, uri::Authority, uri::Scheme};
use http_body::{Body, Frame};
use hyper::{
    body::Incoming,
    client::conn::http2,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::tunnel::{Heard, Listening};

use crate::{
    body::RequestBody,
    upstream::{
        http1::{Fault, Malformed},
        stream,
    },
    worker::LocalExecutor,
};

/// The longest head of an answer, in bytes.
const ANSWER_HEAD: u32 = 256 * 1024;

/// What drives a connection, and knows what its server wants.
type Driver = Rc<RefCell<http2::Connection<TokioIo<Listening>, RequestBody, LocalExecutor>>>;

/// A connection, which requests share.
#[derive(Debug)]
pub struct Shared {
    sender: http2::SendRequest<RequestBody>,
    encrypted: bool,
    driver: Driver,
    /// The server refused a request on it, or it broke: others go elsewhere.
    spent: Rc<Cell<bool>>,
    taken: Rc<Cell<usize>>,
    heard: Heard,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Stream {
    sender: http2::SendRequest<RequestBody>,
    encrypted: bool,
    spent: Rc<Cell<bool>>,
    unsent: Option<RequestBody>,
    refused: bool,
    answer: Option<Incoming>,
    heard: Heard,
    driver: Driver,
    /// The server has agreed to a WebSocket.
    switched: Option<TokioIo<Upgraded>>,
    _taken: Taken,
}

/// A place among the streams of a connection, given up when dropped.
#[derive(Debug)]
struct Taken(Rc<Cell<usize>>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

// === impl Shared ===

impl Shared {
    /// Begins to speak HTTP/2; the connection ends with the last handle to it.
    ///
    /// # Errors
    /// When the server takes nothing.
    pub async fn begin(stream: stream::Stream) -> hyper::Result<Self> {
        let (encrypted, heard) = (stream.is_encrypted(), Heard::default());
        let stream = Listening { stream, heard: heard.clone() };
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .max_header_list_size(ANSWER_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = Driver::new(RefCell::new(connection));
        let driven = driver.clone();
        let running = poll_fn(move |cx| Pin::new(&mut *driven.borrow_mut()).poll(cx));
        tokio::task::spawn_local(async move {
            // Whoever waits for an answer on this connection is told by hyper itself.
            if let Err(error) = running.await {
                tracing::debug!(%error, "connection to a server ended");
            }
        });
        Ok(Self { sender, encrypted, driver, spent: Rc::default(), taken: Rc::default(), heard })
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.spent.get() || self.sender.is_closed()
    }

    /// How many requests it carries now.
    pub fn load(&self) -> usize {
        self.taken.get()
    }

    /// How many requests the server wants to have at a time.
    pub fn wanted(&self) -> usize {
        self.driver.borrow().current_max_send_streams()
    }

    pub fn stream(&self) -> Stream {
        self.taken.set(self.taken.get() + 1);
        Stream {
            sender: self.sender.clone(),
            encrypted: self.encrypted,
            spent: self.spent.clone(),
            unsent: None,
            refused: false,
            answer: None,
            heard: self.heard.clone(),
            driver: self.driver.clone(),
            switched: None,
            _taken: Taken(self.taken.clone()),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When none comes. [`Self::take_back`] and [`Self::is_refused`] tell what may become of the request.
    pub async fn exchange(
        &mut self,
        head: &request::Parts,
        body: RequestBody,
    ) -> Result<response::Parts, Fault> {
        if let Err(error) = self.sender.ready().await {
            self.unsent = Some(body);
            self.spent.set(true);
            return Err(Fault::Http2(error));
        }
        let mut request = dressed(head, body, self.encrypted);
        let wants_tunnel = head.headers.contains_key(header::UPGRADE);
        if wants_tunnel {
            self.heard.anything().await;
            if !self.takes(head) {
                return Err(Fault::NoTunnel);
            }
            tunnel::ask(&mut request);
        }
        match self.sender.try_send_request(request).await {
            Ok(answer) => {
                let (mut answered, incoming) = answer.into_parts();
                if answered.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(Fault::Malformed(Malformed::Unasked));
                }
                if let Some(agreed) = answered.extensions.remove::<OnUpgrade>().filter(|_| wants_tunnel) {
                    self.switched = Some(TokioIo::new(agreed.await.map_err(Fault::Http2)?));
                    tunnel::granted(&mut answered, &head.headers);
                }
                self.answer = Some(incoming);
                Ok(answered)
            }
            Err(mut error) => {
                self.unsent = error.take_message().map(Request::into_body);
                let error = error.into_error();
                let known = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
                self.refused = known.is_some_and(was_refused);
                if self.refused || !known.is_some_and(h2::Error::is_reset) {
                    self.spent.set(true);
                }
                // The only input of ours that can fail is the client's body.
                Err(if error.is_user() { Fault::ClientOverHttp2(error) } else { Fault::Http2(error) })
            }
        }
    }

    /// Whether the server is known to take what this request asks for beside an answer.
    pub fn takes(&self, head: &request::Parts) -> bool {
        !head.headers.contains_key(header::UPGRADE)
            || (tunnel::is_wanted(head) && self.driver.borrow().is_extended_connect_protocol_enabled())
    }

    /// The body of a request of which nothing has been sent.
    pub fn take_back(&mut self) -> Option<RequestBody> {
        self.unsent.take()
    }

    /// Whether the server has promised not to have looked at the request (RFC 9113 §8.7).
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether the answer's body has been read to its end.
    pub fn is_at_end(&self) -> bool {
        self.answer.as_ref().is_none_or(Body::is_end_stream)
    }

    /// What is left of the answer's body, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.answer.as_ref().map_or(Some(0), |answer| answer.size_hint().exact())
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(answer).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Fault::Http2)))
    }
}

/// Bytes of the WebSocket, after the server has agreed to it.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().switched {
            Some(switched) => Pin::new(switched).poll_read(cx, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().switched {
            Some(switched) => Pin::new(switched).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().switched {
            Some(switched) => Pin::new(switched).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().switched {
            Some(switched) => Pin::new(switched).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn was_refused(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => true,
        // The last stream that it looked at is named in it, and those after that one get this error.
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

/// The request for HTTP/2: the host in its target, and no field that concerns one connection (RFC 9113 §8.2.2).
fn dressed(head: &request::Parts, body: RequestBody, encrypted: bool) -> Request<RequestBody> {
    let mut request = Request::new(body);
    request.method_mut().clone_from(&head.method);
    *request.version_mut() = http::Version::HTTP_2;
    let fields = request.headers_mut();
    fields.clone_from(&head.headers);
    for field in [header::CONNECTION, header::UPGRADE] {
        fields.remove(field);
    }
    let host = fields.remove(header::HOST).unwrap_or(HeaderValue::from_static("localhost"));
    let uri = Uri::builder()
        .scheme(if encrypted { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(Authority::try_from(host.as_bytes()).unwrap_or(Authority::from_static("localhost")))
        .path_and_query(head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .build();
    if let Ok(uri) = uri {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_dressed_for_http2() {
        let request = Request::get("/a?b")
            .header(header::HOST, "a.example:8080")
            .header(header::CONNECTION, "upgrade")
            .header("x", "y");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let dressed = dressed(&head, RequestBody::Empty, true);
        assert_eq!(dressed.uri(), "https://a.example:8080/a?b");
        assert_eq!(dressed.headers().keys().collect::<Vec<_>>(), ["x"]);
    }
}
