//! One probe: a fresh connection, a question ([`over_http`], [`grpc`], [`script`]) where there is one, and what is made of the
//! answer. A connection or a TLS handshake may be answer enough.

mod grpc;
mod over_http;
mod patience;
mod script;

use std::{cell::Cell, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, uri::Scheme};
use http_body_util::Full;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    address::ServerAddr,
    clock::Moment,
    config::model::{Ask, HealthCheck, ServerProtocol, ServiceTls},
    health::{
        Health,
        tracker::{Probe, ProbeFault},
    },
    proxy_protocol,
    tls::{certificates::ServerAuthorities, server::ServerTls},
};

/// Where and how to probe a server.
#[derive(Debug, Clone)]
pub struct Target {
    pub addr: ServerAddr,
    pub tls: Option<ServerTls>,
    pub protocol: ServerProtocol,
    pub send_proxy: Option<proxy_protocol::Version>,
    pub check: HealthCheck,
}

impl Target {
    /// As the service speaks with the server, with what the check alone wants besides.
    ///
    /// Where only the check wants TLS, any certificate will do: clients judge what passes through to them, and it is known
    /// to them by a name and authorities that aren't known here.
    pub fn new(
        addr: ServerAddr,
        tls: Option<ServerTls>,
        protocol: ServerProtocol,
        send_proxy: Option<proxy_protocol::Version>,
        check: HealthCheck,
    ) -> Self {
        let wants_tls = matches!(check.ask, Ask::Tls | Ask::Script { tls: true, .. });
        let tls = match tls {
            None if wants_tls => tls_of_its_own(addr, check.host.as_ref()),
            tls => tls,
        };
        Self { addr, tls, protocol, send_proxy, check }
    }

    fn place(&self) -> SocketAddr {
        match self.check.port {
            Some(port) => SocketAddr::new(self.addr.0.ip(), port),
            None => self.addr.0,
        }
    }

    /// The TLS server name, else the server's address.
    fn host(&self) -> HeaderValue {
        let by_itself = || {
            let host = match &self.tls {
                Some(tls) => tls.host(),
                None => self.addr.to_string(),
            };
            HeaderValue::try_from(host).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
        };
        self.check.host.clone().unwrap_or_else(by_itself)
    }

    /// Which HTTP to offer: gRPC knows only one.
    fn protocol(&self) -> ServerProtocol {
        match self.check.ask {
            Ask::Grpc(_) => ServerProtocol::Http2,
            Ask::Http(_) | Ask::Tcp | Ask::Tls | Ask::Script { .. } => self.protocol,
        }
    }
}

fn tls_of_its_own(addr: ServerAddr, host: Option<&HeaderValue>) -> Option<ServerTls> {
    let named = host.and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Uri>().ok());
    let named =
        named.as_ref().and_then(Uri::host).and_then(|host| ServerName::try_from(host.to_owned()).ok());
    let server_name = named.unwrap_or_else(|| ServerName::from(addr.0.ip()));
    let tls = ServiceTls { server_name, authorities: ServerAuthorities::Anybody, certificate: None };
    // That needs no authorities, and nothing else can be missing.
    ServerTls::new(&tls).ok()
}

/// Probes `target` once, for no longer than its timeout. Whatever comes back sets the server's liveness clock.
pub async fn probe(target: &Target, health: &Health) -> Probe {
    let began = Moment::now();
    let limit = target.check.timeout;
    let connected = Cell::new(false);
    let asked = patience::within(limit, async {
        match TcpStream::connect(target.place()).await {
            Ok(stream) => {
                connected.set(true);
                ask(stream, target, health).await
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(ProbeFault::Refused),
            Err(error) => Err(broken(error)),
        }
    });
    let outcome = asked.await.unwrap_or_else(|| match connected.get() {
        true => Err(ProbeFault::Silent(millis(limit))),
        false => Err(ProbeFault::ConnectTimeout(millis(limit))),
    });
    if outcome.is_ok() {
        health.heard(Moment::now());
    }
    Probe { began, outcome }
}

async fn ask(mut stream: TcpStream, target: &Target, health: &Health) -> Result<(), ProbeFault> {
    // What the kernel can't deliver by then it need not go on about when the probe is over.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(target.check.timeout));
    if let Some(version) = target.send_proxy {
        stream.write_all(&proxy_protocol::written(version, None)).await.map_err(broken)?;
    }
    match &target.tls {
        _ if target.check.ask == Ask::Tcp => Ok(()),
        None => speak(stream, target, health, None).await,
        Some(tls) => {
            let connected = tls.connect(stream, target.protocol()).await;
            let stream = connected.map_err(|error| ProbeFault::Tls(error.to_string()))?;
            health.heard(Moment::now());
            let agreed = stream.get_ref().1.alpn_protocol().map(|agreed| agreed == b"h2");
            speak(stream, target, health, agreed).await
        }
    }
}

async fn speak<S>(
    mut stream: S,
    target: &Target,
    health: &Health,
    agreed_on_http2: Option<bool>,
) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match &target.check.ask {
        Ask::Tcp => Ok(()),
        Ask::Tls => {
            // So that it doesn't look like a client that was cut off.
            let _ = stream.shutdown().await;
            Ok(())
        }
        Ask::Script { steps, .. } => script::play(stream, steps, health).await,
        Ask::Grpc(service) => grpc::ask(stream, target, service).await,
        Ask::Http(check) => {
            let http2 = agreed_on_http2.unwrap_or(target.protocol == ServerProtocol::Http2);
            over_http::ask(stream, target, check, health, http2).await
        }
    }
}

/// A request as probes make it.
fn request(
    target: &Target,
    method: &http::Method,
    path: &str,
    http2: bool,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, ProbeFault> {
    let host = target.host();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::USER_AGENT, concat!("weir-health/", env!("CARGO_PKG_VERSION")));
    let request = if http2 {
        let scheme = if target.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build();
        request.uri(uri.map_err(broken)?)
    } else {
        request.header(header::CONNECTION, "close").header(header::HOST, host)
    };
    request.body(Full::new(body)).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> ProbeFault {
    ProbeFault::Broken(error.to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
