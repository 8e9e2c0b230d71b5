//! WebSockets over HTTP/2 (RFC 8441), as far as a proxy sees them: bytes that come back as they were sent.

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, body::Incoming, ext::Protocol};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

use super::Answer;

pub fn is_asked_for(request: &Request<Incoming>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Agrees, and sends back whatever comes.
pub fn echo(request: Request<Incoming>) -> Answer {
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let (mut from, mut to) = split(TokioIo::new(upgraded));
            // A peer that goes away is none of the server's business.
            let _ = copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    });
    Response::new(Empty::new().map_err(super::never).boxed())
}
