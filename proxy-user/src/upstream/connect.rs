//! A new connection to a server: TCP, TLS where the service wants it, and the HTTP that it speaks.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    address::ServerAddr,
    config::model::ServerProtocol,
    proxy_protocol::{self, Ends, Version},
    tls::server::ServerTls,
    upstream::{http1::Connection, http2::Shared, stream::Stream},
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
    #[error("HTTP/2 handshake failed: {0}")]
    Http(hyper::Error),
}

/// A new connection.
#[derive(Debug)]
pub enum Connected {
    Http1(Box<Connection>),
    Http2(Shared),
}

/// How to reach a server.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub addr: ServerAddr,
    pub tls: Option<&'a ServerTls>,
    pub protocol: ServerProtocol,
    /// TCP_USER_TIMEOUT: how long the server's kernel may leave unacknowledged, or not take, what is sent.
    pub unacknowledged: Duration,
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
    SockRef::from(&stream).set_tcp_user_timeout(Some(way.unacknowledged)).map_err(ConnectFault::Tcp)?;
    if let Some((version, ends)) = way.proxied {
        stream.write_all(&proxy_protocol::written(version, ends)).await.map_err(ConnectFault::Tcp)?;
    }
    let stream = match way.tls {
        None => Stream::Plain(stream),
        Some(tls) => {
            Stream::Tls(Box::new(tls.connect(stream, way.protocol).await.map_err(ConnectFault::Tls)?))
        }
    };
    // A server that knows no ALPN says nothing: it must then be one that is known to speak HTTP/2.
    if stream.agreed_on_http2().unwrap_or(way.protocol == ServerProtocol::Http2) {
        Ok(Connected::Http2(Shared::begin(stream).await.map_err(ConnectFault::Http)?))
    } else {
        Ok(Connected::Http1(Connection::new(stream)))
    }
}
