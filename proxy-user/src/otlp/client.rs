//! One request to a collector: over HTTP/2 as gRPC, or over HTTP/1.1.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    config::model::{Collector, OtlpProtocol, ServerProtocol},
    fetch,
    tls::server::ServerTls,
};

/// What a collector has to say is short.
const LONGEST: usize = 64 * 1024;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportFault {
    #[error("{0}")]
    Unreachable(fetch::FetchFault),
    #[error("no TLS: {0}")]
    Tls(std::io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the collector broke off: {0}")]
    Broke(String),
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("the collector answered with gRPC status {code}{}", message.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Grpc { code: u32, message: Option<String> },
}

pub struct Client {
    collector: Collector,
    tls: Option<ServerTls>,
    open: Option<Open>,
}

/// A connection, and the task that drives it.
struct Open {
    sender: Sender,
    driver: JoinHandle<()>,
}

enum Sender {
    Grpc(conn::http2::SendRequest<Full<Bytes>>),
    Http(conn::http1::SendRequest<Full<Bytes>>),
}

impl Client {
    pub fn new(collector: &Collector) -> Result<Self, rustls::Error> {
        let tls = collector.tls.as_ref().map(ServerTls::new).transpose()?;
        Ok(Self { collector: collector.clone(), tls, open: None })
    }

    /// Has the collector take a request.
    pub async fn export(&mut self, request: Bytes) -> Result<(), ExportFault> {
        let limit = self.collector.timeout;
        let outcome = timeout(limit, self.exchange(request)).await;
        let outcome = outcome.unwrap_or(Err(ExportFault::Timeout(limit)));
        if outcome.is_err() {
            // Whatever it was, a new connection knows nothing of it.
            self.open = None;
        }
        outcome
    }

    async fn exchange(&mut self, body: Bytes) -> Result<(), ExportFault> {
        if let Some(known) = &mut self.open
            && !known.is_ready().await
        {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let open = self.open.insert(open);
        match &mut open.sender {
            Sender::Grpc(sender) => {
                let request = grpc(&self.collector, &body)?;
                let response = sender.send_request(request).await.map_err(|error| broke(&error))?;
                taken_by_grpc(response).await
            }
            Sender::Http(sender) => {
                let request = http1(&self.collector, body)?;
                let response = sender.send_request(request).await.map_err(|error| broke(&error))?;
                let status = response.status();
                // Read to its end, so that the connection can be used again.
                let _ = Limited::new(response.into_body(), LONGEST).collect().await;
                if status.is_success() { Ok(()) } else { Err(ExportFault::Status(status)) }
            }
        }
    }

    async fn connect(&self) -> Result<Open, ExportFault> {
        let endpoint = &self.collector.endpoint;
        let host = endpoint.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let usual = if self.tls.is_some() { 443 } else { 80 };
        let port = endpoint.port_u16().unwrap_or(usual);
        let stream = fetch::connect(host, port).await.map_err(ExportFault::Unreachable)?;
        match &self.tls {
            None => self.begin(stream).await,
            Some(tls) => {
                let protocol = match self.collector.protocol {
                    OtlpProtocol::Grpc => ServerProtocol::Http2,
                    OtlpProtocol::Http => ServerProtocol::Http1,
                };
                let stream = tls.connect(stream, protocol).await.map_err(ExportFault::Tls)?;
                self.begin(stream).await
            }
        }
    }

    async fn begin<S>(&self, stream: S) -> Result<Open, ExportFault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        Ok(match self.collector.protocol {
            OtlpProtocol::Grpc => {
                let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .map_err(|error| broke(&error))?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Open { sender: Sender::Grpc(sender), driver }
            }
            OtlpProtocol::Http => {
                let (sender, connection) =
                    conn::http1::handshake(stream).await.map_err(|error| broke(&error))?;
                let driver = tokio::spawn(async move { drop(connection.await) });
                Open { sender: Sender::Http(sender), driver }
            }
        })
    }
}

impl Open {
    /// Whether it takes another request; the collector may have closed it meanwhile.
    async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Grpc(sender) => sender.ready().await.is_ok(),
            Sender::Http(sender) => sender.ready().await.is_ok(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One message: a zero (it isn't compressed), its length, and it.
fn grpc(collector: &Collector, message: &Bytes) -> Result<Request<Full<Bytes>>, ExportFault> {
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.extend_from_slice(message);
    let millis = collector.timeout.as_millis();
    let request = Request::post(collector.endpoint.clone())
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{millis}m"));
    finished(collector, request, body.freeze())
}

fn http1(collector: &Collector, body: Bytes) -> Result<Request<Full<Bytes>>, ExportFault> {
    let endpoint = &collector.endpoint;
    let request = Request::post(endpoint.path_and_query().map_or("/", PathAndQuery::as_str))
        .header(header::HOST, endpoint.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/x-protobuf");
    finished(collector, request, body)
}

fn finished(
    collector: &Collector,
    request: http::request::Builder,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, ExportFault> {
    let request = request.header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")));
    let request =
        collector.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    request.body(Full::new(body)).map_err(|error| ExportFault::Broke(format!("it can't be asked: {error}")))
}

async fn taken_by_grpc(response: Response<Incoming>) -> Result<(), ExportFault> {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(ExportFault::Status(head.status));
    }
    let body = Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|error| ExportFault::Broke(error.to_string()))?;
    // An answer that is nothing but a refusal has its status in the head.
    let status = body.trailers().and_then(status_of).or_else(|| status_of(&head.headers));
    match status {
        Some((0, _)) => Ok(()),
        Some((code, message)) => Err(ExportFault::Grpc { code, message }),
        None => Err(ExportFault::Broke("an answer without a gRPC status".to_owned())),
    }
}

fn status_of(fields: &HeaderMap) -> Option<(u32, Option<String>)> {
    let code = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message =
        fields.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    Some((code, message))
}

/// hyper's own words name the kind of fault; the reason is in what caused it.
fn broke(error: &hyper::Error) -> ExportFault {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    ExportFault::Broke(format!("{error}{cause}"))
}

impl ExportFault {
    /// Whether the collector may take it later: as the specification lists them.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) | Self::Broke(_) | Self::Tls(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502..=504),
            // Cancelled, deadline, aborted, out of range, unavailable, data loss.
            Self::Grpc { code, .. } => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
        }
    }
}
