//! What a client may send: strict rules for the framing of HTTP/1 ([`http1`]) and for targets ([`target`]), and one
//! name for each way to break them ([`Fault`]).
//!
//! Whatever two readers of one stream could read differently is refused. What a client may take its time for is watched by
//! one ticker per worker ([`patience`]), and how often it may change its mind by a budget per connection ([`given_up`]).

use std::borrow::Cow;

pub mod fault;
pub mod given_up;
pub mod http1;
pub mod link;
pub mod patience;
pub mod target;

pub use fault::{Fault, Faults};

use http::{HeaderValue, Method, Version, request};

use crate::glance::Glance;

/// What a request is known to ask for, once its head is found good.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    pub host: Option<HeaderValue>,
    /// The path to route by, where it is not the path as it stands.
    pub path: Option<String>,
}

/// CONNECT with a protocol, as WebSockets are asked for over HTTP/2 (RFC 8441).
pub fn asks_for_websocket(head: &request::Parts) -> bool {
    let protocol = head.extensions.get::<hyper::ext::Protocol>();
    head.version == Version::HTTP_2 && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Judges a request's head, whichever protocol it came by; `seen` is a look over its fields.
///
/// # Errors
/// With the rule that it breaks.
pub fn judge(head: &request::Parts, seen: &Glance<'_>) -> Result<Judged, Fault> {
    if head.method == Method::CONNECT && !asks_for_websocket(head) {
        return Err(Fault::Connect);
    }
    // HTTP/1's was looked at as it was written.
    if head.version >= Version::HTTP_2 {
        let written = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let method = if head.method == Method::CONNECT { &Method::GET } else { &head.method };
        target::judge_written(method.as_str().as_bytes(), written.as_bytes())?;
    }
    let host = target::host(head, seen)?;
    let path = match target::routed(&head.method, head.uri.path())? {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path),
    };
    if let Some(expected) = seen.expect
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Fault::Expectation);
    }
    Ok(Judged { host, path })
}
