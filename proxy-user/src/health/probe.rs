//! One probe: a fresh connection, one GET, the status of its answer. The body is not read.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    address::ServerAddr,
    clock::Moment,
    config::model::HealthCheck,
    health::{
        Health,
        tracker::{Probe, ProbeFault},
    },
    tls::server::ServerTls,
};

/// Where and how to probe a server.
#[derive(Debug, Clone)]
pub struct Target {
    pub addr: ServerAddr,
    pub tls: Option<ServerTls>,
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

async fn ask(stream: TcpStream, target: &Target, health: &Health) -> Result<(), ProbeFault> {
    match &target.tls {
        None => exchange(stream, target, health).await,
        Some(tls) => {
            let stream = tls.connect(stream).await.map_err(|error| ProbeFault::Tls(error.to_string()))?;
            health.heard(Moment::now());
            exchange(stream, target, health).await
        }
    }
}

async fn exchange<S>(stream: S, target: &Target, health: &Health) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: hyper::Error| ProbeFault::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::get(target.check.path.as_str())
        .header(header::USER_AGENT, concat!("weir-health/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| ProbeFault::Broken(error.to_string()))?;
    let host = match &target.check.host {
        Some(host) => host.clone(),
        None => default_host(target),
    };
    request.headers_mut().insert(header::HOST, host);

    // The connection is driven here, and ends with the probe. When it ends by itself, the answer is there or never
    // will be.
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    let answer = answer.map_err(broken)?;
    health.heard(Moment::now());
    match answer.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(ProbeFault::Status(status.as_u16())),
    }
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
