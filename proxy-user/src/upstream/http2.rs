//! HTTP/2 with a server: a connection that many requests share, and one of its streams.
//!
//! Unlike one of HTTP/1, a connection has a task of its own, since nobody who waits for an answer may stop the others.

use std::{
    cell::Cell,
    error::Error as _,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, request, response, uri::Authority, uri::Scheme};
use http_body::{Body, Frame};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;

use crate::{
    body::RequestBody,
    upstream::{http1::Fault, stream},
    worker::LocalExecutor,
};

/// The longest head of an answer, in bytes.
const ANSWER_HEAD: u32 = 256 * 1024;

/// A connection, which requests share.
#[derive(Debug)]
pub struct Shared {
    sender: http2::SendRequest<RequestBody>,
    encrypted: bool,
    /// How many requests the server takes at a time, which it may change.
    wanted: Rc<Cell<usize>>,
    /// The server refused a request on it, or it broke: others go elsewhere.
    spent: Rc<Cell<bool>>,
    taken: Rc<Cell<usize>>,
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
        let encrypted = stream.is_encrypted();
        let (sender, mut connection) = http2::Builder::new(LocalExecutor)
            .max_header_list_size(ANSWER_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        let wanted = Rc::new(Cell::new(connection.current_max_send_streams()));
        let told = wanted.clone();
        let running = poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            told.set(connection.current_max_send_streams());
            polled
        });
        tokio::task::spawn_local(async move {
            // Whoever waits for an answer on this connection is told by hyper itself.
            if let Err(error) = running.await {
                tracing::debug!(%error, "connection to a server ended");
            }
        });
        Ok(Self { sender, encrypted, wanted, spent: Rc::default(), taken: Rc::default() })
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
        self.wanted.get()
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
        match self.sender.try_send_request(dressed(head, body, self.encrypted)).await {
            Ok(answer) => {
                let (head, incoming) = answer.into_parts();
                self.answer = Some(incoming);
                Ok(head)
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
