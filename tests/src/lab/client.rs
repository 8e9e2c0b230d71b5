//! The visitor's browser: an HTTP client inside a namespace, over TLS with the lab's authority, or plain.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use super::{Lab, SITE, addresses, namespace::Namespace, station::Station};

pub type Outgoing = BoxBody<Bytes, std::convert::Infallible>;

/// Where to, how, and as whom.
#[derive(Clone)]
pub struct Target {
    pub to: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    pub host: String,
    /// The address to come from, when the namespace has several.
    pub from: Option<IpAddr>,
    /// For connecting, and again for every response with its body.
    pub patience: Duration,
}

/// A client with one target. Every request is a connection of its own, as from many visitors.
#[derive(Debug, Clone)]
pub struct Browser {
    pub target: Target,
    station: Arc<Station>,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

impl Browser {
    /// One that asks for the lab's site over HTTPS, from inside of `namespace`.
    pub fn of_site(lab: &Lab, namespace: &Namespace) -> anyhow::Result<Self> {
        Self::new(lab, namespace, addresses::HTTPS, &["http/1.1"])
    }

    /// One over HTTPS with these protocols on offer (`h2`, `http/1.1`).
    pub fn new(lab: &Lab, namespace: &Namespace, to: SocketAddr, alpn: &[&str]) -> anyhow::Result<Self> {
        let tls = Some(lab.authority.client_config(alpn)?);
        Ok(Self { target: Target::new(to, tls), station: Arc::new(Station::open(namespace)?) })
    }

    /// One over TLS, as `tls` has it.
    pub fn with_tls(namespace: &Namespace, to: SocketAddr, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(to, Some(tls)), station: Arc::new(Station::open(namespace)?) })
    }

    /// One over plain HTTP.
    pub fn plain(namespace: &Namespace, to: SocketAddr) -> anyhow::Result<Self> {
        let browser = Self { target: Target::new(to, None), station: Arc::new(Station::open(namespace)?) };
        // Whoever asks a namespace's own address means nobody's site: the admin address takes no other name.
        Ok(if to.ip().is_loopback() { browser.with_host(&to.to_string()) } else { browser })
    }

    pub fn with_host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.target.host);
        self
    }

    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.target.patience = patience;
        self
    }

    pub fn station(&self) -> &Arc<Station> {
        &self.station
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send(self.request("GET", path).body(nothing())?)
    }

    /// A request to be filled: method, path and host are set.
    pub fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path)
    }

    /// Sends one request over a new connection, and takes in the whole response.
    pub fn send(&self, request: Request<Outgoing>) -> anyhow::Result<Reply> {
        let target = self.target.clone();
        self.station.run(async move { Connection::open(&target).await?.send(request).await })?
    }

    /// Sends one request over a new connection; the reply has the first piece of the body, and took until that came.
    pub fn first_bytes(&self, request: Request<Outgoing>) -> anyhow::Result<Reply> {
        let target = self.target.clone();
        self.station.run(async move {
            let begun = Instant::now();
            let response = Connection::open(&target).await?.begin(request).await?;
            let (parts, mut body) = response.into_parts();
            let mut first = Bytes::new();
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data()
                    && !data.is_empty()
                {
                    first = data;
                    break;
                }
            }
            Ok(Reply {
                status: parts.status,
                version: parts.version,
                headers: parts.headers,
                body: first,
                took: begun.elapsed(),
            })
        })?
    }

    /// A GET whose body is counted and thrown away as it comes.
    pub fn download(&self, path: &str) -> anyhow::Result<u64> {
        let target = self.target.clone();
        let request = self.request("GET", path).body(nothing())?;
        self.station.run(async move {
            let mut response = Connection::open(&target).await?.begin(request).await?;
            let mut bytes = 0;
            while let Some(frame) = response.body_mut().frame().await {
                bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
            }
            Ok(bytes)
        })?
    }
}

/// The body of a GET.
pub fn nothing() -> Outgoing {
    body("")
}

/// A body that is all there.
pub fn body(text: impl Into<Bytes>) -> Outgoing {
    Full::new(text.into()).boxed()
}

impl Target {
    pub fn new(to: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { to, tls, host: SITE.to_owned(), from: None, patience: Duration::from_secs(10) }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.host, self.to)
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server that answered.
    pub fn upstream(&self) -> Option<&str> {
        self.header("x-upstream")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// Whether this is the edge's own maintenance page, and not a server's answer.
    pub fn is_maintenance(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            && self.upstream().is_none()
            && self.header("retry-after").is_some()
            && self.header("cache-control").is_some_and(|value| value.contains("no-store"))
    }
}

/// One connection; requests on it go one after the other.
pub struct Connection {
    sender: Sender,
    host: String,
    scheme: &'static str,
    patience: Duration,
}

enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

impl Connection {
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        tokio::time::timeout(target.patience, Self::connect(target))
            .await
            .with_context(|| format!("no connection to {} within {:?}", target.to, target.patience))?
    }

    async fn connect(target: &Target) -> anyhow::Result<Self> {
        let socket = if target.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = target.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream =
            socket.connect(target.to).await.with_context(|| format!("can't connect to {}", target.to))?;
        stream.set_nodelay(true)?;
        let (sender, scheme) = match &target.tls {
            None => (Self::speak(stream, false).await?, "http"),
            Some(config) => {
                let name = target.host.split(':').next().unwrap_or_default().to_owned();
                let name = ServerName::try_from(name)?;
                let stream = TlsConnector::from(Arc::clone(config))
                    .connect(name, stream)
                    .await
                    .context("the TLS handshake failed")?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Self::speak(stream, http2).await?, "https")
            }
        };
        Ok(Self { sender, host: target.host.clone(), scheme, patience: target.patience })
    }

    async fn speak<S>(stream: S, http2: bool) -> anyhow::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Ok(Sender::Http1(sender))
        }
    }

    /// Whether a further request can go over it.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    /// Sends, and returns when the response's header is there.
    pub async fn begin(&mut self, mut request: Request<Outgoing>) -> anyhow::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                if !request.headers().contains_key("host") {
                    request.headers_mut().insert("host", self.host.parse()?);
                }
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = hyper::Uri::builder()
                    .scheme(self.scheme)
                    .authority(self.host.as_str())
                    .path_and_query(request.uri().to_string())
                    .build()?;
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Sends, and takes in the whole response.
    pub async fn send(&mut self, request: Request<Outgoing>) -> anyhow::Result<Reply> {
        let begun = Instant::now();
        let patience = self.patience;
        let whole = async {
            let response = self.begin(request).await.context("no response")?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.context("the response's body broke off")?.to_bytes();
            anyhow::Ok((parts, body))
        };
        let Ok(done) = tokio::time::timeout(patience, whole).await else {
            bail!("no whole response within {patience:?}");
        };
        let (parts, body) = done?;
        Ok(Reply {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            body,
            took: begun.elapsed(),
        })
    }
}
