//! One attempt to have a request answered by one server: a pooled or new connection, the request, the head of the
//! answer. What to make of a failure is decided in [`crate::request`].

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{Response, header, request, response};
use tokio::time::timeout;

use crate::{
    balance::Tried,
    body::RequestBody,
    clock::Moment,
    config::model::ServerProtocol,
    proxy_protocol::Ends,
    service::{Picked, Server, Service},
    upstream::{
        carrier::Carrier,
        connect::{self, ConnectFault, Connected, Way},
        http1::{Early, Fault},
        parcel::Memory,
        pool::{Lease, Pool},
        waiting::{GaveUp, WaitingRoom},
    },
    worker::Worker,
};

/// The head of an answer; its body streams behind it over the leased connection.
#[derive(Debug)]
pub struct Answer {
    pub head: response::Parts,
    /// When it came.
    pub at: Instant,
    /// A connection was opened for it, in that time.
    pub connect: Option<Duration>,
    pub lease: Lease,
}

impl Answer {
    /// Its head and its whole body; then the connection can be used again. `None`: it broke off, or is longer than
    /// `longest` bytes.
    pub async fn whole(mut self, longest: usize) -> Option<Response<Bytes>> {
        let mut body = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| self.lease.carrier.poll_frame(cx)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() > longest {
                return None;
            }
        }
        self.lease.give_back();
        Some(Response::from_parts(self.head, body.freeze()))
    }
}

/// An attempt that brought no answer.
#[derive(Debug)]
pub struct Failed {
    pub fault: AttemptFault,
    /// The request's body, when not a byte of the request has left: any server may have it next.
    pub unsent: Option<RequestBody>,
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
    #[error("the server was taken out")]
    Down,
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the connection broke before an answer came: {0}")]
    Broke(Fault),
    #[error(transparent)]
    ClientBroke(Fault),
    #[error("{}", Fault::NoTunnel)]
    NoTunnel,
}

/// What an attempt uses of its worker.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    pub worker: &'a Rc<Worker>,
    pub pool: &'a Rc<Pool>,
    pub waiting: &'a WaitingRoom,
    /// What is kept of requests' bodies.
    pub kept: &'a Memory,
    /// Whose request it is, and where it came in.
    pub ends: Ends,
    pub early: Early<'a>,
}

/// Which connections an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    PooledOrNew,
    New,
}

/// What an attempt may do.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub connections: Connections,
    /// The request may leave a server that is taken out, if there is one beside these. `None`: it stays.
    pub beside: Option<Tried>,
}

/// Sends a request to the server that was picked and waits for the head of its answer. Until the answer is over, the server
/// has it under way.
pub async fn attempt(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    terms: Terms,
    head: &request::Parts,
    body: RequestBody,
) -> Result<Answer, Failed> {
    let under_way = picked.server.begin();
    // Only where somebody wants to know: a look at the clock costs something.
    let began = service.balancer.measures().then(Instant::now);
    match ask(means, service, picked, terms, head, body).await {
        Ok(Answer { head: mut answer, at, connect, lease }) => {
            let took = began.map(|began| at.duration_since(began));
            service.answered(picked, took, &head.headers, &mut answer.headers);
            Ok(Answer { head: answer, at, connect, lease: lease.counts(under_way) })
        }
        Err(failed) => {
            if !matches!(failed.fault, AttemptFault::ClientBroke(_)) {
                service.failed(picked, began.map(|began| began.elapsed()));
            }
            Err(failed)
        }
    }
}

async fn ask(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    terms: Terms,
    head: &request::Parts,
    mut body: RequestBody,
) -> Result<Answer, Failed> {
    let server = picked.server;
    // To switch to another protocol is HTTP/1's, and WebSockets pass over HTTP/2 if the server takes them.
    let http1 = match service.protocol {
        ServerProtocol::Http1 => true,
        ServerProtocol::Http2 => false,
        ServerProtocol::Auto => service.tls.is_none() || head.headers.contains_key(header::UPGRADE),
    };
    // A pooled connection may turn out to be closed by the server. What was not sent goes to the next one; the
    // pool is finite, so this ends.
    let pooled = || match terms.connections {
        Connections::PooledOrNew if service.send_proxy.is_none() => {
            let shared = means.pool.take_shared(server.pool_key);
            let shared = shared
                .filter(|stream| !http1 || stream.takes(head))
                .map(|stream| Carrier::Http2(Box::new(stream)));
            shared.or_else(|| means.pool.take(server.pool_key).map(Carrier::Http1))
        }
        Connections::PooledOrNew | Connections::New => None,
    };
    while let Some(carrier) = pooled() {
        match exchange(means, service, picked, carrier, terms, head, body).await {
            Err(Failed { fault: AttemptFault::Broke(_), unsent: Some(unsent), .. }) => body = unsent,
            Err(failed) => {
                let stale = matches!(failed.fault, AttemptFault::Broke(_));
                return Err(Failed { stale, ..failed });
            }
            answered => return answered,
        }
    }
    let limit = service.timeouts.connect;
    // Boxed, since it is large and most requests go over a connection that is open.
    let begun = Instant::now();
    let opening = Box::pin(open(means.pool, service, server, Some(means.ends), http1));
    let opened = timeout(limit, opening).await;
    match opened.unwrap_or(Err(ConnectFault::Timeout(limit))) {
        Ok(carrier) => {
            let connect = Some(begun.elapsed());
            let answer = exchange(means, service, picked, carrier, terms, head, body).await?;
            Ok(Answer { connect, ..answer })
        }
        Err(fault) => {
            server.health.suspect();
            let fault = AttemptFault::Connect(fault);
            Err(Failed { fault, unsent: Some(body), stale: false, refused: false })
        }
    }
}

/// A new connection; where many will share it, the one that somebody else is opening.
pub async fn open(
    pool: &Pool,
    service: &Service,
    server: &Server,
    ends: Option<Ends>,
    http1: bool,
) -> Result<Carrier, ConnectFault> {
    let key = server.pool_key;
    let protocol = if http1 { ServerProtocol::Http1 } else { service.protocol };
    let proxied = service.send_proxy.map(|version| (version, ends));
    let way = Way {
        addr: server.addr,
        tls: service.tls.as_ref(),
        protocol,
        unacknowledged: service.timeouts.unacknowledged,
        proxied,
    };
    let shareable = match protocol {
        // One that was begun in a client's name belongs to that client.
        _ if proxied.is_some() => false,
        ServerProtocol::Http1 => false,
        ServerProtocol::Http2 => true,
        ServerProtocol::Auto => way.tls.is_some(),
    };
    let opening = if shareable { pool.opening(key) } else { None };
    let _opening = match &opening {
        Some(opening) => Some(opening.lock().await),
        None => None,
    };
    // Whoever waited may find it open by now.
    if opening.is_some()
        && let Some(stream) = pool.take_shared(key)
    {
        return Ok(Carrier::Http2(Box::new(stream)));
    }
    Ok(match connect::connect(way).await? {
        Connected::Http2(connection) if shareable => Carrier::Http2(Box::new(pool.share(key, connection))),
        Connected::Http2(connection) => Carrier::Http2(Box::new(connection.stream())),
        Connected::Http1(connection) => {
            if shareable {
                pool.speaks_http1(key);
            }
            Carrier::Http1(connection)
        }
    })
}

async fn exchange(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    mut carrier: Carrier,
    terms: Terms,
    head: &request::Parts,
    body: RequestBody,
) -> Result<Answer, Failed> {
    let server = picked.server;
    let can_leave = || terms.beside.is_some_and(|tried| service.has_other(tried));
    let (first_byte, answer) = (service.timeouts.first_byte, carrier.exchange(head, body, means.early));
    let answered = means.waiting.wait(&server.health, picked.silences, first_byte, can_leave, answer).await;
    match answered {
        Ok(Ok(head)) => {
            let at = Instant::now();
            server.health.heard(Moment::of(at));
            let keep = service.send_proxy.is_none().then_some(service.pool);
            let lease = Lease::new(server.pool_key, means.pool.clone(), carrier, server.health.clone(), keep);
            Ok(Answer { head, at, connect: None, lease })
        }
        Ok(Err(fault @ (Fault::Client(_) | Fault::ClientOverHttp2(_) | Fault::WrongLength))) => Err(Failed {
            fault: AttemptFault::ClientBroke(fault),
            unsent: None,
            stale: false,
            refused: false,
        }),
        Ok(Err(Fault::NoTunnel)) => {
            Err(Failed { fault: AttemptFault::NoTunnel, unsent: None, stale: false, refused: false })
        }
        Ok(Err(fault)) => {
            let (unsent, refused) = (carrier.take_back(), carrier.is_refused());
            if !refused {
                server.health.suspect();
            }
            Err(Failed { fault: AttemptFault::Broke(fault), unsent, stale: false, refused })
        }
        Err(GaveUp::ServerDown) => {
            Err(Failed { fault: AttemptFault::Down, unsent: None, stale: false, refused: false })
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

impl AttemptFault {
    /// In a word, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(ConnectFault::Timeout(_)) => "connect_timeout",
            Self::Connect(ConnectFault::Tcp(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "refused"
            }
            Self::Connect(ConnectFault::Tcp(_)) => "unreachable",
            Self::Connect(ConnectFault::Tls(_) | ConnectFault::Http(_)) => "handshake",
            Self::Silent => "silent",
            Self::Down => "down",
            Self::FirstByteTimeout(_) => "first_byte_timeout",
            Self::NoTunnel => "no_tunnel",
            Self::Broke(Fault::Malformed(_)) => "malformed",
            Self::Broke(_) => "broke",
            Self::ClientBroke(_) => "client_left",
        }
    }
}
