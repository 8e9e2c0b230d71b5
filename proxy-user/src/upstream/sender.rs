//! A connection to a server, whichever HTTP it speaks, and how a request is dressed for it.

use std::{cell::Cell, rc::Rc};

use http::{HeaderValue, Request, Response, Uri, header, uri::Authority, uri::Scheme};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use crate::body::RequestBody;

/// What can carry a request to a server.
#[derive(Debug)]
pub enum Sender {
    /// Carries one at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// Carries many at a time: this is one of them.
    Http2(Stream),
}

/// A place among the streams of a connection, given up when dropped.
#[derive(Debug)]
pub struct Stream {
    sender: http2::SendRequest<RequestBody>,
    encrypted: bool,
    spent: Rc<Cell<bool>>,
    _taken: Taken,
}

#[derive(Debug)]
struct Taken(Rc<Cell<usize>>);

/// A connection of HTTP/2, which requests share.
#[derive(Debug)]
pub struct Shared {
    sender: http2::SendRequest<RequestBody>,
    encrypted: bool,
    wanted: Rc<Cell<usize>>,
    /// The server refused a request on it, or it broke: others go elsewhere.
    spent: Rc<Cell<bool>>,
    taken: Rc<Cell<usize>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Shared {
    /// `wanted` is how many requests the server takes at a time, which it may change.
    pub fn new(sender: http2::SendRequest<RequestBody>, encrypted: bool, wanted: Rc<Cell<usize>>) -> Self {
        Self { sender, encrypted, wanted, spent: Rc::default(), taken: Rc::default() }
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
            _taken: Taken(self.taken.clone()),
        }
    }
}

impl Sender {
    /// Waits until it takes a request.
    ///
    /// # Errors
    /// When it is closed.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(stream) => stream.sender.ready().await,
        }
    }

    /// Nobody else is to use this connection.
    pub fn spend(&self) {
        if let Self::Http2(stream) = self {
            stream.spent.set(true);
        }
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// When none comes; with the request, if it has not left.
    pub async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => {
                dress_for_http1(&mut request);
                sender.try_send_request(request).await
            }
            Self::Http2(stream) => {
                dress_for_http2(&mut request, stream.encrypted);
                stream.sender.try_send_request(request).await
            }
        }
    }
}

/// The host in a field, the target in origin form. A request that was dressed for HTTP/2 before, and never left, has it
/// the other way round.
fn dress_for_http1(request: &mut Request<RequestBody>) {
    let Some(authority) = request.uri().authority() else { return };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
}

/// The host in the target; no field that concerns one connection (RFC 9113 §8.2.2).
fn dress_for_http2(request: &mut Request<RequestBody>, encrypted: bool) {
    *request.version_mut() = http::Version::HTTP_2;
    for field in [header::CONNECTION, header::UPGRADE] {
        request.headers_mut().remove(field);
    }
    let Some(host) = request.headers_mut().remove(header::HOST) else { return };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.authority = Some(authority);
    parts.scheme = Some(if encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_dressed_for_either_and_back() {
        let mut request = Request::get("/a?b").body(RequestBody::Empty).unwrap();
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("a.example:8080"));
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        dress_for_http2(&mut request, true);
        assert_eq!(request.uri(), "https://a.example:8080/a?b");
        assert!(request.headers().is_empty());
        dress_for_http1(&mut request);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()[header::HOST], "a.example:8080");
    }
}
