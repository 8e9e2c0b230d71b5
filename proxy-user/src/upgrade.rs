//! Connections that stop being HTTP: WebSocket and whatever else is asked for with `Upgrade` (RFC 9110 §7.8).
//!
//! `Upgrade` belongs to one hop, so a proxy asks the server anew for what the client asked it. When both have switched
//! (101), bytes are carried both ways until either side ends; a reload or another configuration does not touch them.

use std::rc::Rc;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request, response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

use crate::{
    access_log::Exchange,
    body::ClientBody,
    connection::http1::Switch,
    hygiene::{self, Fault, patience::Stall},
    request::Caller,
    service::UnderWay,
    upstream::carrier::Carrier,
};

/// Per direction; as much as a WebSocket message usually has.
const BUFFER: usize = 16 * 1024;

/// A client's wish to switch to another protocol.
#[derive(Debug)]
pub struct Wish {
    protocol: HeaderValue,
    client: Client,
}

/// Whose stream switches.
#[derive(Debug)]
enum Client {
    Http1(Switch),
    /// It came as a CONNECT: the server is asked in HTTP/1's way (RFC 8441 §5).
    Http2(OnUpgrade),
}

/// Both sides have agreed to switch: what is left of the way is carrying bytes.
#[derive(Debug)]
pub struct Tunnel {
    client: Client,
    server: Carrier,
}

/// The server's side of it, and what is kept until it is over.
#[derive(Debug)]
pub struct Crossing {
    server: Carrier,
    exchange: Box<Exchange>,
    /// Its server has it under way.
    #[expect(dead_code, reason = "counts as long as it is held")]
    under_way: Option<UnderWay>,
}

impl Wish {
    /// What the client asks for, if it asks: to be called before the fields of this hop are stripped. `names_connection`:
    /// whether Connection is among them.
    pub fn of(head: &mut request::Parts, names_connection: bool, body: &ClientBody) -> Option<Self> {
        if hygiene::asks_for_websocket(head) {
            let client = head.extensions.remove::<OnUpgrade>()?;
            head.method = Method::GET;
            // HTTP/2 leaves it out; servers of HTTP/1 insist on it. 16 random bytes, as every client makes them.
            let key = BASE64_STANDARD.encode(fastrand::u128(..).to_le_bytes());
            head.headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
            let protocol = HeaderValue::from_static("websocket");
            return Some(Self { protocol, client: Client::Http2(client) });
        }
        if !names_connection || head.version != Version::HTTP_11 || !names_upgrade(&head.headers) {
            return None;
        }
        let protocol = head.headers.get(header::UPGRADE)?.clone();
        if leads_past_the_rules(&protocol) {
            return None;
        }
        let ClientBody::Http1(body) = body else { return None };
        Some(Self { protocol, client: Client::Http1(body.switch()?) })
    }

    /// Whether success means, to the client, that it is granted.
    pub fn is_connect(&self) -> bool {
        matches!(self.client, Client::Http2(_))
    }

    /// Asks the server for the same.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// The tunnel, after the server has agreed with `head`; its fields are made those for the client.
    pub fn granted(
        self,
        head: &mut response::Parts,
        protocol: Option<HeaderValue>,
        server: Carrier,
    ) -> Tunnel {
        if self.is_connect() {
            head.status = StatusCode::OK;
            head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            return Tunnel { client: self.client, server };
        }
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.unwrap_or(self.protocol));
        Tunnel { client: self.client, server }
    }
}

impl Tunnel {
    /// Carries bytes until either side ends, then writes the access log's line. Until then the server has it `under_way`.
    pub fn carry(self, caller: &Rc<Caller>, exchange: Box<Exchange>, under_way: Option<UnderWay>) {
        let Self { client, server } = self;
        let crossing = Crossing { server, exchange, under_way };
        match client {
            // Its connection does so itself, once it has sent the answer's head.
            Client::Http1(switch) => switch.to(crossing),
            Client::Http2(client) => {
                let counted = caller.worker.count_connection();
                let caller = caller.clone();
                tokio::task::spawn_local(async move {
                    // The client's side is there once it has got the answer's head; it may be gone before.
                    match client.await {
                        Ok(client) => crossing.carry(TokioIo::new(client), &caller).await,
                        Err(_) => crossing.end(),
                    }
                    drop((counted, caller));
                });
            }
        }
    }
}

// === impl Crossing ===

impl Crossing {
    /// Carries bytes until either side ends, or neither says anything for too long.
    pub async fn carry(mut self, mut client: impl AsyncRead + AsyncWrite + Unpin, caller: &Caller) {
        let mut stall = Stall::new(caller.worker.patience.clone(), caller.entrypoint.limits.stream_idle);
        let carried = copy_bidirectional_with_sizes(&mut client, &mut self.server, BUFFER, BUFFER);
        match stall.watch(carried).await {
            Some(Ok((to_server, to_client))) => {
                self.exchange.received.bytes.set(to_server);
                self.exchange.bytes_out = to_client;
            }
            Some(Err(_)) => {}
            None => {
                caller.entrypoint.counters.faults.count(Fault::StreamTimeout);
                self.exchange.flags.refused = Some(Fault::StreamTimeout);
            }
        }
        self.end();
    }

    /// It is over, or comes to nothing.
    pub fn end(self) {
        self.exchange.finish();
    }
}

/// HTTP/2 (and TLS) behind an upgrade would be a tunnel in which requests reach the server that no rule here has seen. A
/// server may not be asked for that, and answers in HTTP/1 instead (RFC 9110 §7.8).
fn leads_past_the_rules(protocols: &HeaderValue) -> bool {
    let within = |protocol: &[u8], name: &[u8]| {
        protocol.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
    };
    protocols.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).any(|protocol| {
        within(protocol, b"h2")
            || within(protocol, b"h3")
            || within(protocol, b"http/")
            || within(protocol, b"tls/")
    })
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_ask_a_server_to_speak_http_unseen() {
        for (value, past) in [
            ("websocket", false),
            ("h2c", true),
            ("websocket, H2C", true),
            ("HTTP/2.0", true),
            ("TLS/1.0", true),
            ("echo", false),
        ] {
            assert_eq!(leads_past_the_rules(&HeaderValue::from_static(value)), past, "{value}");
        }
    }

    #[test]
    fn the_wish_is_one_of_a_list_and_in_any_case() {
        for (value, wished) in [
            ("upgrade", true),
            ("keep-alive, Upgrade", true),
            ("keep-alive", false),
            ("upgrade-insecure", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONNECTION, HeaderValue::from_static(value))]);
            assert_eq!(names_upgrade(&headers), wished, "{value}");
        }
    }
}
