//! One probe: a fresh connection, one GET, the status of its answer. The body is not read.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    address::ServerAddr,
    clock::Moment,
    config::model::{DrainOn, HealthCheck, ServerProtocol},
    health::{
        Health,
        tracker::{Probe, ProbeFault},
    },
    proxy_protocol,
    tls::server::ServerTls,
    worker::LocalExecutor,
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

/// Probes `target` once, for no longer than its timeout. Whatever comes back sets the server's liveness clock.
pub async fn probe(target: &Target, health: &Health) -> Probe {
    let began = Moment::now();
    let limit = target.check.timeout;
    let outcome = match timeout(limit, TcpStream::connect(target.addr.0)).await {
        Err(_) => Err(ProbeFault::ConnectTimeout(millis(limit))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(ProbeFault::Refused),
        Ok(Err(error)) => Err(ProbeFault::Broken(error.to_string())),
        Ok(Ok(stream)) => {
            let spent = Duration::from_millis(Moment::now().since(began));
            match timeout(limit.saturating_sub(spent), ask(stream, target, health)).await {
                Err(_) => Err(ProbeFault::Silent(millis(limit))),
                Ok(outcome) => outcome,
            }
        }
    };
    Probe { began, outcome }
}

async fn ask(mut stream: TcpStream, target: &Target, health: &Health) -> Result<(), ProbeFault> {
    if let Some(version) = target.send_proxy {
        let written = stream.write_all(&proxy_protocol::written(version, None)).await;
        written.map_err(|error| ProbeFault::Broken(error.to_string()))?;
    }
    match &target.tls {
        None => exchange(stream, target, health, target.protocol == ServerProtocol::Http2).await,
        Some(tls) => {
            let connected = tls.connect(stream, target.protocol).await;
            let stream = connected.map_err(|error| ProbeFault::Tls(error.to_string()))?;
            health.heard(Moment::now());
            let http2 = match stream.get_ref().1.alpn_protocol() {
                Some(agreed) => agreed == b"h2",
                None => target.protocol == ServerProtocol::Http2,
            };
            exchange(stream, target, health, http2).await
        }
    }
}

async fn exchange<S>(stream: S, target: &Target, health: &Health, http2: bool) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    // The connection is driven here, and ends with the probe. When it ends by itself, the answer is there or never
    // will be.
    let answer = if http2 {
        let (mut sender, connection) = http2::handshake(LocalExecutor, stream).await.map_err(broken)?;
        let mut answer = pin!(sender.send_request(request(target, true)?));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        let mut answer = pin!(sender.send_request(request(target, false)?));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    };
    let answer = answer.map_err(broken)?;
    health.heard(Moment::now());
    let asks = asks_to_drain(&target.check.drain, answer.status(), answer.headers());
    let drains = asks.is_some();
    if drains || answer.status().is_success() || answer.status().is_redirection() {
        tell_of_drain(target, health, asks);
    }
    match answer.status() {
        _ if drains => Ok(()),
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(ProbeFault::Status(status.as_u16())),
    }
}

/// With which words an answer asks that its server be drained.
fn asks_to_drain(drain: &DrainOn, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if drain.statuses.contains(&status) {
        return Some(format!("the probe was answered with status {}", status.as_u16()));
    }
    let header = drain.header.as_ref().filter(|header| headers.contains_key(*header))?;
    Some(format!("the probe's answer has the header `{header}`"))
}

/// A drain that is asked for begins and ends with the answers. One that says nothing (an error) leaves it as it is.
fn tell_of_drain(target: &Target, health: &Health, asks: Option<String>) {
    let server = target.addr;
    match (asks.clone(), health.asked_to_drain(asks)) {
        (Some(why), true) => tracing::info!(%server, why, "server asks to be drained: it gets no new work"),
        (None, true) => tracing::info!(%server, "server does not ask to be drained any more"),
        (_, false) => {}
    }
}

fn request(target: &Target, http2: bool) -> Result<Request<Empty<Bytes>>, ProbeFault> {
    let host = target.check.host.clone().unwrap_or_else(|| default_host(target));
    let path = target.check.path.as_str();
    let request =
        Request::get(path).header(header::USER_AGENT, concat!("weir-health/", env!("CARGO_PKG_VERSION")));
    let request = if http2 {
        let scheme = if target.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build();
        request.uri(uri.map_err(|error| ProbeFault::Broken(error.to_string()))?)
    } else {
        request.header(header::CONNECTION, "close").header(header::HOST, host)
    };
    request.body(Empty::new()).map_err(|error| ProbeFault::Broken(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
fn broken(error: hyper::Error) -> ProbeFault {
    ProbeFault::Broken(error.to_string())
}

/// The TLS server name, else the server's address.
fn default_host(target: &Target) -> http::HeaderValue {
    let host = match &target.tls {
        Some(tls) => tls.host(),
        None => target.addr.to_string(),
    };
    http::HeaderValue::try_from(host).unwrap_or_else(|_| http::HeaderValue::from_static("localhost"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_asks_for_a_drain_by_its_status_or_by_a_header() {
        let drain =
            DrainOn { statuses: vec![StatusCode::NOT_FOUND], header: Some("x-drain".parse().unwrap()) };
        let with = HeaderMap::from_iter([("x-drain".parse().unwrap(), http::HeaderValue::from_static(""))]);
        let without = HeaderMap::new();
        for (drain, status, headers, asks) in [
            (&drain, 200, &without, false),
            (&drain, 404, &without, true),
            (&drain, 503, &without, false),
            (&drain, 200, &with, true),
            (&drain, 503, &with, true),
            (&DrainOn::default(), 404, &with, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(asks_to_drain(drain, status, headers).is_some(), asks, "{status} {headers:?}");
        }
    }
}
