//! A new connection to a server: TCP, TLS where the service wants it, the handshake of the HTTP that it speaks.

use std::{cell::Cell, future::poll_fn, io, pin::Pin, rc::Rc, time::Duration};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    address::ServerAddr,
    body::RequestBody,
    config::model::ServerProtocol,
    proxy_protocol::{self, Ends, Version},
    tls::server::ServerTls,
    upstream::{sender::Shared, stream::HeardOut},
    worker::LocalExecutor,
};

/// The longest head of an answer over HTTP/2, in bytes.
const ANSWER_HEAD: u32 = 256 * 1024;

/// Why there is no connection. Nothing of the request was sent: it may go to another server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("could not connect: {0}")]
    Tcp(io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("HTTP handshake failed: {0}")]
    Http(hyper::Error),
}

/// A new connection, which runs as a task of this worker and ends with the last handle to it.
#[derive(Debug)]
pub enum Connected {
    Http1(http1::SendRequest<RequestBody>),
    Http2(Shared),
}

/// How to reach a server.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub addr: ServerAddr,
    pub tls: Option<&'a ServerTls>,
    pub protocol: ServerProtocol,
    /// How to begin, if not with HTTP: as what, and for whom.
    pub proxied: Option<(Version, Option<Ends>)>,
}

/// Connects, TLS included.
///
/// # Errors
/// With the step that failed.
pub async fn connect(way: Way<'_>) -> Result<Connected, ConnectFault> {
    let mut stream = TcpStream::connect(way.addr.0).await.map_err(ConnectFault::Tcp)?;
    // Requests are written whole: waiting for more bytes to fill a segment only delays them.
    stream.set_nodelay(true).map_err(ConnectFault::Tcp)?;
    if let Some((version, ends)) = way.proxied {
        stream.write_all(&proxy_protocol::written(version, ends)).await.map_err(ConnectFault::Tcp)?;
    }
    match way.tls {
        None if way.protocol == ServerProtocol::Http2 => speak_http2(stream, false).await,
        None => speak_http1(stream).await,
        Some(tls) => {
            let stream = tls.connect(stream, way.protocol).await.map_err(ConnectFault::Tls)?;
            match (stream.get_ref().1.alpn_protocol(), way.protocol) {
                (Some(b"h2"), _) => speak_http2(stream, true).await,
                // A server that knows no ALPN says nothing: it must then be one that is known to speak HTTP/2.
                (None, ServerProtocol::Http2) => speak_http2(stream, true).await,
                _ => speak_http1(stream).await,
            }
        }
    }
}

async fn speak_http1<S>(stream: S) -> Result<Connected, ConnectFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(HeardOut::new(stream))).await.map_err(ConnectFault::Http)?;
    tokio::task::spawn_local(async move {
        // Whoever waits for an answer on this connection is told by hyper itself.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(Connected::Http1(sender))
}

async fn speak_http2<S>(stream: S, encrypted: bool) -> Result<Connected, ConnectFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = http2::Builder::new(LocalExecutor)
        .max_header_list_size(ANSWER_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectFault::Http)?;
    let wanted = Rc::new(Cell::new(connection.current_max_send_streams()));
    let told = wanted.clone();
    let running = poll_fn(move |cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        told.set(connection.current_max_send_streams());
        polled
    });
    tokio::task::spawn_local(async move {
        if let Err(error) = running.await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(Connected::Http2(Shared::new(sender, encrypted, wanted)))
}
