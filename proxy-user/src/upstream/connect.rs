//! A new connection to a server: TCP, and TLS where the service wants it.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    address::ServerAddr,
    tls::server::ServerTls,
    upstream::{http1::Connection, stream::Stream},
};

/// Why there is no connection. Nothing of the request was sent: it may go to another server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("could not connect: {0}")]
    Tcp(io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
}

/// Connects within `limit`, TLS included.
pub async fn connect(
    addr: ServerAddr,
    tls: Option<&ServerTls>,
    limit: Duration,
) -> Result<Box<Connection>, ConnectFault> {
    timeout(limit, establish(addr, tls)).await.unwrap_or(Err(ConnectFault::Timeout(limit)))
}

async fn establish(addr: ServerAddr, tls: Option<&ServerTls>) -> Result<Box<Connection>, ConnectFault> {
    let stream = TcpStream::connect(addr.0).await.map_err(ConnectFault::Tcp)?;
    // Requests are written whole: waiting for more bytes to fill a segment only delays them.
    stream.set_nodelay(true).map_err(ConnectFault::Tcp)?;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => Stream::Tls(Box::new(tls.connect(stream).await.map_err(ConnectFault::Tls)?)),
    };
    Ok(Connection::new(stream))
}
