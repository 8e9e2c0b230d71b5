//! A new connection to a server: TCP, TLS where the service wants it, the HTTP/1.1 handshake.

use std::{io, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{address::ServerAddr, body::RequestBody, tls::server::ServerTls};

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

/// Connects within `limit`, TLS included. The connection itself runs as a task of this worker and ends with the
/// last handle to it.
pub async fn connect(
    addr: ServerAddr,
    tls: Option<&ServerTls>,
    limit: Duration,
) -> Result<SendRequest<RequestBody>, ConnectFault> {
    timeout(limit, establish(addr, tls)).await.unwrap_or(Err(ConnectFault::Timeout(limit)))
}

async fn establish(
    addr: ServerAddr,
    tls: Option<&ServerTls>,
) -> Result<SendRequest<RequestBody>, ConnectFault> {
    let stream = TcpStream::connect(addr.0).await.map_err(ConnectFault::Tcp)?;
    // Requests are written whole: waiting for more bytes to fill a segment only delays them.
    stream.set_nodelay(true).map_err(ConnectFault::Tcp)?;
    match tls {
        None => speak_http(stream).await,
        Some(tls) => speak_http(tls.connect(stream).await.map_err(ConnectFault::Tls)?).await,
    }
}

async fn speak_http<S>(stream: S) -> Result<SendRequest<RequestBody>, ConnectFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ConnectFault::Http)?;
    tokio::task::spawn_local(async move {
        // Whoever waits for an answer on this connection is told by hyper itself.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(sender)
}
