//! Asks a running daemon over its admin address; what the command line speaks.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    config::model::{AdminAddr, ServerProtocol},
    tls::server::ServerTls,
};

/// A daemon that doesn't answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Orders may have to wait for first probes, for the kernel, and for other orders.
const PATIENCE_WITH_WORK: Duration = Duration::from_secs(60);

/// Where a daemon is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp {
        authority: String,
        tls: bool,
    },
    Unix(PathBuf),
}

/// An address, and what it takes to get in there.
#[derive(Debug, Clone)]
pub struct Door {
    pub address: Address,
    pub token: Option<HeaderValue>,
    /// Where the address says `https`.
    pub tls: Option<ServerTls>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    #[error("no weir answers at {at}: {error}; does it run, and is this its admin address (`--admin`)?")]
    NoDaemon { at: String, error: io::Error },
    #[error("{at} speaks no TLS that is believed: {error}; `--admin-ca` names its authority")]
    Tls { at: String, error: io::Error },
    #[error("the daemon at {at} took longer than {} s to answer", patience.as_secs())]
    Silent { at: String, patience: Duration },
    #[error("the daemon at {at} broke off: {error}")]
    Broken { at: String, error: hyper::Error },
}

/// GETs `path` from the daemon behind `door`.
///
/// # Errors
/// When no daemon answers there.
pub async fn get(door: &Door, path: &str) -> Result<(StatusCode, Bytes), AskFault> {
    ask(door, request(door, Method::GET, path, Bytes::new()), PATIENCE).await
}

/// POSTs `json` to the daemon behind `door`, which must be a socket or take the token to be listened to.
///
/// # Errors
/// When no daemon answers there. A refusal is an answer.
pub async fn post(
    door: &Door,
    path: &str,
    json: &serde_json::Value,
) -> Result<(StatusCode, Bytes), AskFault> {
    ask(door, request(door, Method::POST, path, json.to_string().into()), PATIENCE_WITH_WORK).await
}

/// Whether anybody takes connections at `addr`.
pub async fn answers(addr: &AdminAddr) -> bool {
    let connected = async {
        match addr {
            AdminAddr::Tcp(addr) => TcpStream::connect(addr).await.is_ok(),
            AdminAddr::Unix(socket) => UnixStream::connect(socket).await.is_ok(),
        }
    };
    timeout(PATIENCE, connected).await.unwrap_or(false)
}

/// Whether a living daemon answers at `addr`, be it that it drains.
pub async fn pings(addr: &AdminAddr) -> bool {
    get(&Door::from(addr.clone()), "/ping").await.is_ok()
}

fn request(door: &Door, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    if method == Method::POST {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    *request.method_mut() = method;
    if let Ok(target) = path.parse() {
        *request.uri_mut() = target;
    }
    let host = match &door.address {
        Address::Tcp { authority, .. } => HeaderValue::from_str(authority).ok(),
        Address::Unix(_) => None,
    };
    let host = host.unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::HOST, host);
    if let Some(token) = &door.token {
        request.headers_mut().insert(header::AUTHORIZATION, token.clone());
    }
    request
}

async fn ask(
    door: &Door,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), AskFault> {
    let at = door.address.to_string();
    let asked = async {
        let no_daemon = |error| AskFault::NoDaemon { at: at.clone(), error };
        match (&door.address, &door.tls) {
            (Address::Unix(socket), _) => {
                exchange(UnixStream::connect(socket).await.map_err(no_daemon)?, request, &at).await
            }
            (Address::Tcp { authority, .. }, None) => {
                exchange(TcpStream::connect(authority).await.map_err(no_daemon)?, request, &at).await
            }
            (Address::Tcp { authority, .. }, Some(tls)) => {
                let stream = TcpStream::connect(authority).await.map_err(no_daemon)?;
                let stream = tls.connect(stream, ServerProtocol::Http1).await;
                exchange(stream.map_err(|error| AskFault::Tls { at: at.clone(), error })?, request, &at).await
            }
        }
    };
    timeout(patience, asked).await.unwrap_or_else(|_| Err(AskFault::Silent { at: at.clone(), patience }))
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    at: &str,
) -> Result<(StatusCode, Bytes), AskFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let broken = |error| AskFault::Broken { at: at.to_owned(), error };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let ask = async {
        let (head, body): (_, Incoming) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
    };
    // The connection is driven beside the question, and ends with it.
    tokio::select! {
        answer = ask => answer.map_err(broken),
        () = async { drop(connection.await); std::future::pending().await } => unreachable!("pends for ever"),
    }
}

// === impl Address ===

impl Address {
    /// The name to which a certificate must be issued.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { authority, .. } => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                Some(host.trim_start_matches('[').trim_end_matches(']'))
            }
            Self::Unix(_) => None,
        }
    }

    /// The same, if it is on this host without doubt.
    pub fn local(&self) -> Option<AdminAddr> {
        match self {
            Self::Unix(path) => Some(AdminAddr::Unix(path.clone())),
            Self::Tcp { authority, tls: false } => {
                let address: std::net::SocketAddr = authority.parse().ok()?;
                address.ip().is_loopback().then_some(AdminAddr::Tcp(address))
            }
            Self::Tcp { tls: true, .. } => None,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => (false, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let whole = authority.parse::<http::uri::Authority>().ok();
        match whole.filter(|whole| whole.port_u16().is_some() && !authority.contains('@')) {
            Some(_) => Ok(Self::Tcp { authority: authority.to_owned(), tls }),
            None => {
                Err("expected an address and port (127.0.0.1:9190, https://edge1:9190), or unix:/path"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, tls: false } => f.write_str(authority),
            Self::Tcp { authority, tls: true } => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

// === impl Door ===

impl From<AdminAddr> for Door {
    /// One that needs nothing.
    fn from(addr: AdminAddr) -> Self {
        let address = match addr {
            AdminAddr::Tcp(addr) => Address::Tcp { authority: addr.to_string(), tls: false },
            AdminAddr::Unix(path) => Address::Unix(path),
        };
        Self { address, token: None, tls: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tcp_with_or_without_tls_or_a_socket() {
        let tcp = |authority: &str, tls| Ok(Address::Tcp { authority: authority.to_owned(), tls });
        for (text, expected) in [
            ("127.0.0.1:9190", tcp("127.0.0.1:9190", false)),
            ("http://[::1]:9190/", tcp("[::1]:9190", false)),
            ("https://edge1.example:9190", tcp("edge1.example:9190", true)),
            ("edge1:9190", tcp("edge1:9190", false)),
            ("unix:/run/x", Ok(Address::Unix("/run/x".into()))),
        ] {
            assert_eq!(text.parse::<Address>(), expected, "{text}");
        }
        for text in ["nowhere", "", "https://edge1", "127.0.0.1:", "a b:1", "https://u:p@h:1", "h:1/path"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_surely_here_counts_as_local() {
        let local = |text: &str| text.parse::<Address>().unwrap().local().is_some();
        assert!(local("127.0.0.1:1") && local("[::1]:1") && local("unix:/x"));
        assert!(!local("localhost:1") && !local("192.0.2.1:1") && !local("https://127.0.0.1:1"));
    }

    #[test]
    fn the_name_in_a_certificate_is_the_host() {
        let host = |text: &str| text.parse::<Address>().unwrap().host().map(str::to_owned);
        assert_eq!(host("https://edge1.example:1").as_deref(), Some("edge1.example"));
        assert_eq!(host("https://[::1]:1").as_deref(), Some("::1"));
        assert_eq!(host("unix:/x"), None);
    }
}
