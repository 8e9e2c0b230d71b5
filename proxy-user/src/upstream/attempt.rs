//! One attempt to have a request answered by one server: a pooled or new connection, the request, the head of the
//! answer. What to make of a failure is decided in [`crate::request`].

use std::{error::Error as _, rc::Rc, time::Duration};

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    body::RequestBody,
    clock::Moment,
    config::model::ServerProtocol,
    proxy_protocol::Ends,
    service::{Picked, Service},
    upstream::{
        connect::{self, ConnectFault, Connected, Way},
        pool::{Lease, Pool},
        sender::Sender,
        waiting::{GaveUp, WaitingRoom},
    },
};

/// The head of an answer; its body streams behind it over the leased connection.
#[derive(Debug)]
pub struct Answer {
    pub response: Response<Incoming>,
    pub lease: Lease,
}

/// An attempt that brought no answer.
#[derive(Debug)]
pub struct Failed {
    pub fault: AttemptFault,
    /// The request, when not a byte of it has left: any server may have it next.
    pub unsent: Option<Request<RequestBody>>,
    /// It broke on a connection from the pool: most likely the server closed that while the request was on its way, and
    /// has never read it.
    pub stale: bool,
    /// The server has said that it did nothing of it (HTTP/2: REFUSED_STREAM, GOAWAY): it may be sent again as if for the
    /// first time.
    pub refused: bool,
}

/// Why an attempt failed. It is the server's fault, or the network's on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum AttemptFault {
    #[error(transparent)]
    Connect(ConnectFault),
    #[error("the server fell silent")]
    Silent,
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the connection broke before an answer came: {0}")]
    Broke(hyper::Error),
    #[error("the answer's head is malformed: {0}")]
    Malformed(&'static str),
    #[error("the client's request broke off: {0}")]
    ClientBroke(hyper::Error),
}

/// What an attempt uses of its worker.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    pub pool: &'a Rc<Pool>,
    pub waiting: &'a WaitingRoom,
    /// Whose request it is, and where it came in.
    pub ends: Ends,
}

/// Which connections an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    PooledOrNew,
    New,
}

/// Sends `request` to the server that was picked and waits for the head of its answer.
pub async fn attempt(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    connections: Connections,
    mut request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    let server = picked.server;
    // A pooled connection may turn out to be closed by the server. What was not sent goes to the next one; the
    // pool is finite, so this ends.
    // Only HTTP/1 can switch to another protocol.
    let http1 = request.headers().contains_key(header::UPGRADE);
    let pooled = || match connections {
        Connections::PooledOrNew if service.send_proxy.is_some() => None,
        Connections::PooledOrNew => means.pool.take(server.pool_key, http1),
        Connections::New => None,
    };
    while let Some(sender) = pooled() {
        match exchange(means, service, picked, sender, request).await {
            Err(Failed { fault: AttemptFault::Broke(_), unsent: Some(unsent), .. }) => request = unsent,
            Err(failed) => {
                let stale = matches!(failed.fault, AttemptFault::Broke(_));
                return Err(Failed { stale, ..failed });
            }
            answered => return answered,
        }
    }
    let limit = service.timeouts.connect;
    match timeout(limit, open(means, service, picked, http1))
        .await
        .unwrap_or(Err(ConnectFault::Timeout(limit)))
    {
        Ok(sender) => exchange(means, service, picked, sender, request).await,
        Err(fault) => {
            server.health.suspect();
            let fault = AttemptFault::Connect(fault);
            Err(Failed { fault, unsent: Some(request), stale: false, refused: false })
        }
    }
}

/// A new connection; where many will share it, the one that somebody else is opening.
async fn open(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    http1: bool,
) -> Result<Sender, ConnectFault> {
    let key = picked.server.pool_key;
    let protocol = if http1 { ServerProtocol::Http1 } else { service.protocol };
    let proxied = service.send_proxy.map(|version| (version, Some(means.ends)));
    let way = Way { addr: picked.server.addr, tls: service.tls.as_ref(), protocol, proxied };
    if proxied.is_some() {
        // It belongs to one client: nobody else may have it.
        return Ok(match connect::connect(way).await? {
            Connected::Http1(sender) => Sender::Http1(sender),
            Connected::Http2(connection) => Sender::Http2(connection.stream()),
        });
    }
    let shareable = match protocol {
        ServerProtocol::Http1 => false,
        ServerProtocol::Http2 => true,
        ServerProtocol::Auto => way.tls.is_some(),
    };
    let opening = if shareable { means.pool.opening(key) } else { None };
    let _opening = match &opening {
        Some(opening) => Some(opening.lock().await),
        None => None,
    };
    // Whoever waited may find it open by now.
    if opening.is_some()
        && let Some(sender) = means.pool.take_shared(key)
    {
        return Ok(sender);
    }
    match connect::connect(way).await? {
        Connected::Http2(connection) => Ok(means.pool.share(key, connection)),
        Connected::Http1(sender) => {
            if shareable {
                means.pool.speaks_http1(key);
            }
            Ok(Sender::Http1(sender))
        }
    }
}

async fn exchange(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    mut sender: Sender,
    request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    let server = picked.server;
    let asked_to_switch = request.headers().contains_key(header::UPGRADE);
    let send = async {
        if let Err(error) = sender.ready().await {
            return Err((error, Some(request)));
        }
        sender.send(request).await.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    };
    let answered =
        means.waiting.wait(&server.health, picked.silences, service.timeouts.first_byte, send).await;
    match answered {
        Ok(Ok(response)) => {
            server.health.heard(Moment::now());
            if let Some(what) = malformed(&response, asked_to_switch) {
                return Err(Failed {
                    fault: AttemptFault::Malformed(what),
                    unsent: None,
                    stale: false,
                    refused: false,
                });
            }
            let keep = service.send_proxy.is_none();
            let lease = Lease::new(server.pool_key, means.pool.clone(), sender, server.health.clone(), keep);
            Ok(Answer { response, lease })
        }
        Ok(Err((error, unsent))) if error.is_user() => {
            // The only input of ours that can fail is the client's body.
            Err(Failed { fault: AttemptFault::ClientBroke(error), unsent, stale: false, refused: false })
        }
        Ok(Err((error, unsent))) => {
            let refused = was_refused(&error);
            if refused || !was_reset(&error) {
                sender.spend();
            }
            if !refused {
                server.health.suspect();
            }
            Err(Failed { fault: AttemptFault::Broke(error), unsent, stale: false, refused })
        }
        Err(GaveUp::ServerSilent) => {
            Err(Failed { fault: AttemptFault::Silent, unsent: None, stale: false, refused: false })
        }
        Err(GaveUp::FirstByteTimeout) => {
            server.health.suspect();
            let fault = AttemptFault::FirstByteTimeout(service.timeouts.first_byte);
            Err(Failed { fault, unsent: None, stale: false, refused: false })
        }
    }
}

/// What two readers of this head could read differently, and hyper lets pass.
fn malformed(response: &Response<Incoming>, asked_to_switch: bool) -> Option<&'static str> {
    let headers = response.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Some("it has a length, and chunks besides");
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asked_to_switch {
        return Some("it switches to a protocol that nobody asked for");
    }
    None
}

/// Whether only this one stream ended, and the connection goes on.
fn was_reset(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(h2::Error::is_reset)
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// Whether the server has promised not to have looked at the request (RFC 9113 §8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let Some(error) = http2_error(error) else { return false };
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => true,
        // The last stream that it looked at is named in it, and those after that one get this error.
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}
