//! The life of a request, from its head to the head of its answer. A table of contents: the stages are elsewhere.

use std::{
    cell::Cell,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request, response,
    uri::Scheme,
};

use crate::{
    access_log::{
        self, Exchange,
        ending::{Flags, Timings},
        format::unix_millis,
    },
    address::{ClientAddr, EntrypointAddr, PeerAddr},
    body::{ClientBody, RequestBody, ResponseBody},
    connection::crowd::Place,
    forwarding::{self, Origin},
    glance::Glance,
    https,
    hygiene::{self, Fault, Judged, link::Link, patience::Stall},
    identity::{self, Spelled, TrustedSource},
    middleware::{Halt, Passage, headers::Facts, reason::Reason, shape::Shape},
    page::{
        self, Occasion, Reader, Told,
        by_status::{self, drop_answer},
        show::{maintained, show},
        why::Why,
    },
    passthrough::Outage,
    proxy_protocol::Ends,
    routing::rule::Asked,
    service::Service,
    snapshot::{Entrypoint, Snapshot},
    tls::handshake::Session,
    upgrade::Wish,
    upstream::{
        attempt::{Answer, Means},
        deliver::Undelivered,
        http1::Early,
    },
    variants::deliver,
    worker::Worker,
};

/// The connection that a request came over.
#[derive(Debug)]
pub struct Caller {
    pub worker: Rc<Worker>,
    /// As of accept; a reload may have changed it since.
    pub entrypoint: Arc<Entrypoint>,
    pub peer: Spelled<PeerAddr>,
    pub at: EntrypointAddr,
    /// The address that it was accepted on; `at`, unless that is a wildcard.
    pub local: SocketAddr,
    /// What the TLS handshake has told; `None`: it is a plain connection.
    pub session: Option<Session>,
    /// Why a client is let go.
    pub link: Rc<Link>,
    /// So many requests have come over it.
    pub requests: Cell<u64>,
    /// Kept until the last of its requests is over.
    pub place: Place,
    /// Where somebody wants to know: when the TLS handshake began, and how long it took.
    pub handshake: Option<(Instant, Duration)>,
    /// It was meant for a server that can't be reached: all that is asked over it gets a page.
    pub outage: Option<Outage>,
}

impl Caller {
    /// During an outage: resolves when the page was asked for, so that the next connection finds the server again. Must be
    /// polled whenever the connection is.
    pub async fn has_its_page(&self) {
        poll_fn(|_| match self.outage.is_some() && self.requests.get() > 0 {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Whose request it is, and where it came in: for servers that are told by the PROXY protocol.
    fn ends(&self, client: ClientAddr) -> Ends {
        // Of a client that somebody else speaks for, no port is known.
        let port = if client.0 == self.peer.addr.ip() { self.peer.addr.0.port() } else { 0 };
        Ends { source: SocketAddr::new(client.0, port), destination: self.local }
    }
}

/// Why Weir answers itself. One place, [`refuse`], turns it into a response.
#[derive(Debug)]
enum Refusal<'a> {
    /// The client's fault.
    Client(Fault),
    /// The client's fault, or a reload's: the connection was made for another host.
    Misdirected,
    /// Nobody's fault: the request is plain, and belongs on HTTPS.
    ToHttps(StatusCode, HeaderValue),
    /// The client's fault, or a gap in the configuration.
    NoRoute,
    /// The route's middleware has its own answer.
    Halted(Halt),
    /// Nobody's fault: an ACME authority asks for the proof of an order.
    Challenge(String),
    /// The servers' fault, unless the client left.
    Undelivered(&'a Service, Undelivered, Response<Bytes>),
    /// Nobody's fault, or a server's: a page is there for it.
    Page(&'a Service, Why, Response<Bytes>),
    /// Nobody's fault: it asks for what lies beside a page.
    Asset(Response<Bytes>),
}

/// Answers one request.
pub fn answer(
    caller: Rc<Caller>,
    request: Request<impl Into<ClientBody>>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    let version = request.version();
    answered(caller.clone(), request.map(Into::into))
        // Whose name it is decides how it is to be reached, and that isn't this host.
        .map_ok(move |response| {
            if response.status().is_server_error() {
                caller.entrypoint.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            if caller.outage.is_some() {
                response
            } else {
                https::advertised(&caller, version, https::strict(&caller, response))
            }
        })
}

async fn answered(
    caller: Rc<Caller>,
    request: Request<ClientBody>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut head, incoming) = request.into_parts();

    // 1. Who asks, and under which number?
    let snapshot = caller.worker.snapshot();
    let entrypoint = snapshot.entrypoint(caller.at).unwrap_or(&caller.entrypoint);
    entrypoint.counters.requests.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now();
    let trust = TrustedSource::trust(entrypoint.client_ip.as_ref(), caller.peer.addr);
    let client = identity::client_address(entrypoint.client_ip.as_ref(), trust, &caller.peer, &head.headers);
    let request_id = identity::request_id(trust, &head.headers, unix_millis(now));
    let seen = Glance::over(&head.headers);
    let taste = &Reader::seen(&seen);
    caller.requests.set(caller.requests.get() + 1);
    let judged = match head.extensions.get::<Fault>() {
        Some(&fault) => Err(fault),
        None => hygiene::judge(&head, &seen),
    };
    let mut exchange = Box::new(Exchange {
        log: caller.worker.log.clone(),
        began: Instant::now(),
        began_at: now,
        client: client.text.clone(),
        method: head.method.clone(),
        host: judged.as_ref().ok().and_then(|judged| judged.host.clone()),
        path: head.uri.path_and_query().cloned(),
        version: head.version,
        user_agent: seen.user_agent.cloned(),
        referer: seen.referer.cloned(),
        request_id: request_id.clone(),
        entrypoint: entrypoint.name.clone(),
        route: None,
        server: None,
        variant: None,
        server_took: None,
        attempts: Vec::new(),
        status: access_log::unanswered(),
        received: Rc::default(),
        bytes_out: 0,
        flags: Flags::default(),
        timings: Timings::default(),
        noted: snapshot.access_logs.note(&head.headers),
        trace: snapshot.tracer.as_ref().map(|tracer| tracer.begin(&caller, trust, &head.headers)),
        link: caller.link.clone(),
        held: Vec::new(),
        finished: false,
    });

    let names_connection = seen.connection;

    // 2. Where does it lead?
    let Judged { mut host, path } = match judged {
        Ok(judged) => judged,
        Err(fault) => return Ok(refuse(Refusal::Client(fault), entrypoint, taste, exchange)),
    };
    let host_name = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !https::well_directed(&caller, entrypoint, host_name) {
        return Ok(refuse(Refusal::Misdirected, entrypoint, taste, exchange));
    }
    if let Some(proof) = snapshot.acme.answer(head.uri.path()) {
        return Ok(refuse(Refusal::Challenge(proof), entrypoint, taste, exchange));
    }
    if let Some(redirect) = &entrypoint.redirect {
        match https::onward(redirect, host_name, &head.uri) {
            _ if host_name.is_empty() => {
                return Ok(refuse(Refusal::Client(Fault::Host), entrypoint, taste, exchange));
            }
            Some(to) => {
                return Ok(refuse(Refusal::ToHttps(redirect.status, to), entrypoint, taste, exchange));
            }
            None => {}
        }
    }
    let plain_path = path.as_deref().unwrap_or(head.uri.path());
    if let Some(asset) = snapshot.assets.answer(plain_path, &head.method, &head.headers) {
        return Ok(refuse(Refusal::Asset(asset), entrypoint, taste, exchange));
    }
    if let Some(Outage { page, service, route }) = &caller.outage {
        exchange.route = Some(route.clone());
        let means = caller.worker.means(caller.ends(client.addr));
        let page = show(page, Why::AllDown, Occasion::default(), &snapshot, means, taste, &mut exchange);
        let page = Box::pin(page).await;
        return Ok(refuse(Refusal::Page(service, Why::AllDown, page), entrypoint, taste, exchange));
    }
    let wish = Wish::of(&mut head, names_connection, &incoming);
    let asked = Asked {
        host: host_name,
        path: path.as_deref().unwrap_or(head.uri.path()),
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
        client: client.addr.0,
    };
    let Some(destination) = entrypoint.router.find(&asked) else {
        return Ok(refuse(Refusal::NoRoute, entrypoint, taste, exchange));
    };
    exchange.route = Some(destination.route.clone());
    destination.requests.fetch_add(1, Ordering::Relaxed);

    // 3. What does the server get to see?
    let scheme = if caller.session.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    forwarding::towards_server(
        &mut head.headers,
        &Origin {
            peer: &caller.peer.text,
            client: &client.text,
            trust,
            scheme: &scheme,
            host: host.as_ref(),
            request_id: &request_id,
        },
    );
    if let Some(trace) = &exchange.trace {
        trace.tell(&mut head.headers);
    }
    https::tell_of_client(&caller, entrypoint, &mut head.headers);
    let listener = incoming.listener();
    let stall = |limit| Stall::new(caller.worker.patience.clone(), limit);
    let mut body = RequestBody::new(incoming, &exchange.received, || stall(entrypoint.limits.body_idle));

    // 4. What is done to it on its way, and may it go on?
    let (means, chain) = (caller.worker.means(caller.ends(client.addr)), &destination.chain);
    let compression = chain.compression(&head);
    let facts = (!chain.is_empty()).then(|| Facts::of(&exchange, host.as_ref(), &scheme));
    let dressed = |mut response: Response<ResponseBody>| {
        if let Some(facts) = &facts {
            chain.dress(response.headers_mut(), facts);
        }
        Ok(response)
    };
    if snapshot.maintenance.is_on()
        && let Some(service) = &destination.service
    {
        let path = path.as_deref().unwrap_or(head.uri.path());
        let page = maintained(&snapshot, means, taste, path, client.addr.0, &mut exchange);
        if let Some(page) = Box::pin(page).await {
            return dressed(refuse(
                Refusal::Page(service, Why::Maintenance, page),
                entrypoint,
                taste,
                exchange,
            ));
        }
    }
    if let Some(facts) = &facts {
        let passage = Passage {
            head: &mut head,
            host: &mut host,
            path: path.as_deref(),
            body: &mut body,
            exchange: &mut exchange,
            means,
            client: client.addr.0,
            facts,
        };
        // Boxed, since it is large and most requests have none.
        if let Err(halt) = Box::pin(chain.admit(passage)).await {
            return dressed(refuse(Refusal::Halted(halt), entrypoint, taste, exchange));
        }
    }
    let Some(mut service) = destination.service.as_ref() else {
        return dressed(refuse(Refusal::NoRoute, entrypoint, taste, exchange));
    };
    if let Some(wish) = &wish {
        wish.pass_on(&mut head.headers);
    }
    for_server(&mut head, host);

    // 5. A server answers, or a page does.
    let hears = |mut early: response::Parts| {
        forwarding::towards_client(&mut early.headers, &request_id);
        if let Some(listener) = &listener {
            listener.hear(&early);
        }
    };
    let means = Means { early: Early::to(&hears), ..means };
    let by = chain.first_byte_by(exchange.began);
    let delivered = deliver(means, by, &mut service, &head, body, &mut exchange).await;
    match delivered {
        Ok(answer)
            if let Some(page) = by_status::page(
                answer.head.status,
                destination.pages.as_ref(),
                service.pages.as_ref(),
                taste,
                &head.headers,
            ) =>
        {
            let head = &answer.head;
            let occasion =
                Occasion { status: Some(head.status), left: by_status::retry_after(&head.headers) };
            let kept = by_status::kept(&head.headers);
            drop_answer(answer);
            let page = show(page, Why::Status, occasion, &snapshot, means, taste, &mut exchange);
            let mut page = Box::pin(page).await;
            page.headers_mut().extend(kept);
            dressed(refuse(Refusal::Page(service, Why::Status, page), entrypoint, taste, exchange))
        }
        Ok(answer) => {
            let Answer { mut head, lease, .. } = answer;
            snapshot.access_logs.note_answer(&mut exchange.noted, &head.headers);
            let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
            let protocol = if switches { head.headers.get(header::UPGRADE).cloned() } else { None };
            forwarding::towards_client(&mut head.headers, &request_id);
            exchange.status = head.status;
            let connects = wish.as_ref().is_some_and(Wish::is_connect);
            if switches {
                let Some(wish) = wish else {
                    // A server that switches unasked was found out before.
                    let page = all_down(service, &snapshot, means, taste, &mut exchange).await;
                    let refusal = Refusal::Undelivered(service, Undelivered::NoServer, page);
                    return Ok(refuse(refusal, entrypoint, taste, exchange));
                };
                let (server, under_way) = lease.into_carrier();
                wish.granted(&mut head, protocol, server).carry(&caller, exchange, under_way);
                return Ok(Response::from_parts(head, ResponseBody::whole(Bytes::new(), None)));
            }
            if connects && head.status.is_success() {
                // To the client that would mean that it has its WebSocket, but the server didn't switch.
                head.status = StatusCode::BAD_GATEWAY;
                exchange.status = head.status;
            }
            let encoder = compression.and_then(|offer| offer.take(&mut head));
            let shape = Shape::new(chain.over_by(exchange.began), encoder);
            // The answer is spoken in the client's version, whatever the server's was.
            head.version = Version::HTTP_11;
            let body = ResponseBody::of_server(lease, stall(entrypoint.limits.stream_idle), exchange);
            dressed(Response::from_parts(head, body.shaped(shape)))
        }
        Err(Undelivered::ClientLeft) if exchange.received.too_large.get() => {
            dressed(refuse(Refusal::Halted(Halt::TooLarge), entrypoint, taste, exchange))
        }
        Err(Undelivered::ClientLeft) if let Some(fault) = exchange.received.fault.get() => {
            dressed(refuse(Refusal::Client(fault), entrypoint, taste, exchange))
        }
        Err(fault) => {
            let page = match fault {
                Undelivered::ClientLeft => Response::default(),
                _ => all_down(service, &snapshot, means, taste, &mut exchange).await,
            };
            dressed(refuse(Refusal::Undelivered(service, fault, page), entrypoint, taste, exchange))
        }
    }
}

/// The page for when no server answers. Boxed, since it is large and most requests are answered.
async fn all_down(
    service: &Service,
    snapshot: &Snapshot,
    means: Means<'_>,
    reader: &Reader,
    exchange: &mut Exchange,
) -> Response<Bytes> {
    let page = show(service.page(), Why::AllDown, Occasion::default(), snapshot, means, reader, exchange);
    Box::pin(page).await
}

/// Turns a refusal into its answer, and notes it in the exchange.
fn refuse(
    refusal: Refusal<'_>,
    entrypoint: &Entrypoint,
    reader: &Reader,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let request_id = &exchange.request_id;
    let plain = |status| page::refusal(status, &entrypoint.error_page, reader, Told::of(&exchange));
    let mut response: Response<Bytes> = match refusal {
        Refusal::Client(fault) => {
            let response = plain(fault.status());
            exchange.flags.refused = Some(fault);
            entrypoint.counters.faults.count(fault);
            response
        }
        Refusal::NoRoute => plain(StatusCode::NOT_FOUND),
        Refusal::Halted(halt) => {
            let reason = Reason::of(&halt);
            let response = halt.answer(request_id, plain);
            if let Some(reason) = reason {
                exchange.flags.halted = Some(reason);
                entrypoint.counters.halts.count(reason);
            }
            response
        }
        Refusal::Challenge(proof) => page::plain(StatusCode::OK, request_id).map(|_| proof.into()),
        Refusal::Misdirected => https::misdirected(plain(StatusCode::MISDIRECTED_REQUEST), exchange.version),
        Refusal::ToHttps(status, to) => https::sent_on(page::plain(status, request_id), to),
        // Nobody is there any more to read it.
        Refusal::Undelivered(_, Undelivered::ClientLeft, _) => {
            let response = page::plain(StatusCode::BAD_REQUEST, request_id);
            exchange.broken_off();
            response
        }
        Refusal::Undelivered(_, fault @ Undelivered::NoTunnel, _) => {
            let response = plain(StatusCode::BAD_GATEWAY);
            exchange.flags.undelivered = Some(fault.name());
            response
        }
        Refusal::Undelivered(service, fault, page) => {
            exchange.flags.undelivered = Some(fault.name());
            if matches!(fault, Undelivered::TooLate) {
                exchange.flags.halted = Some(Reason::TimedOut);
                entrypoint.counters.halts.count(Reason::TimedOut);
            }
            entrypoint.counters.pages.count(Why::AllDown);
            service.counters.pages.fetch_add(1, Ordering::Relaxed);
            page
        }
        Refusal::Page(service, why, page) => {
            entrypoint.counters.pages.count(why);
            service.counters.pages.fetch_add(1, Ordering::Relaxed);
            page
        }
        Refusal::Asset(asset) if asset.status() == StatusCode::NOT_FOUND => plain(StatusCode::NOT_FOUND),
        Refusal::Asset(mut asset) => {
            asset.headers_mut().insert(identity::REQUEST_ID, request_id.clone());
            asset
        }
    };
    exchange.status = response.status();
    if exchange.method == Method::HEAD {
        page::without_body(&mut response);
    }
    response.map(|bytes| ResponseBody::whole(bytes, Some(exchange)))
}

/// Makes of a client's request the one that a server gets: with a host, and one Cookie field.
fn for_server(head: &mut request::Parts, host: Option<HeaderValue>) {
    // An HTTP/1.0 client may name no host, but the server must be asked for one.
    head.headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    merge_cookies(&mut head.headers, head.version);
}

/// HTTP/2 may split the Cookie field to compress it better; HTTP/1.1 allows only one (RFC 9113 §8.2.3).
fn merge_cookies(headers: &mut HeaderMap, version: Version) {
    if version < Version::HTTP_2 || headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, target: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.uri_mut() = target.parse().unwrap();
        for &(name, value) in fields {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn cookies_split_by_http2_are_joined() {
        let mut head =
            head(Version::HTTP_2, "https://a.example/x?y", &[("cookie", "a=1"), ("cookie", "b=2")]);
        for_server(&mut head, Some(HeaderValue::from_static("a.example")));
        assert_eq!(head.headers[header::COOKIE], "a=1; b=2");
        assert_eq!(head.headers.get_all(header::COOKIE).iter().count(), 1);
    }
}
