//! The visitor's browser when it speaks HTTP/3: one connection of QUIC, and as many requests over it as are wanted.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use hyper::{HeaderMap, Request, Response, http::request};
use quinn::{ClientConfig, Endpoint, TransportConfig, crypto::rustls::QuicClientConfig};
use tokio::time::timeout;

use super::{
    client::{Browser, Reply, Target},
    namespace::Namespace,
};
use crate::Lab;

pub type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// A connection. Clones ask over the same one.
#[derive(Clone)]
pub struct Line {
    pub quic: quinn::Connection,
    sender: SendRequest<OpenStreams, Bytes>,
    target: Target,
    endpoint: Endpoint,
}

/// A client of the lab's site, from inside of `namespace`, as [`Browser`] is one over TCP.
pub fn browser(lab: &Lab, namespace: &Namespace, to: SocketAddr) -> anyhow::Result<Browser> {
    Browser::new(lab, namespace, to, &["h3"])
}

/// One GET over a connection of its own.
pub fn get(browser: &Browser, path: &str) -> anyhow::Result<Reply> {
    let (target, path) = (browser.target.clone(), path.to_owned());
    browser.station().run(async move { Line::open(&target).await?.get(&path).await })?
}

impl Line {
    /// Connects, in the namespace of the station that runs this.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let quic = Self::connect(target).await?;
        Self::over(target, quic.0, quic.1).await
    }

    /// QUIC alone: nothing of HTTP has been said.
    pub async fn connect(target: &Target) -> anyhow::Result<(Endpoint, quinn::Connection)> {
        let any: SocketAddr = match (target.from, target.to) {
            (Some(from), _) => (from, 0).into(),
            (None, SocketAddr::V4(_)) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            (None, SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let tls = target.tls.as_ref().context("HTTP/3 is always encrypted")?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.clone())?));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(60).try_into()?));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client(any)?;
        let connecting = endpoint.connect_with(config, target.to, &target.host)?;
        let connection = timeout(target.patience, connecting).await.context("no handshake in time")??;
        Ok((endpoint, connection))
    }

    async fn over(target: &Target, endpoint: Endpoint, quic: quinn::Connection) -> anyhow::Result<Self> {
        let (mut driver, sender) =
            h3::client::builder().send_grease(true).build(h3_quinn::Connection::new(quic.clone())).await?;
        tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { quic, sender, target: target.clone(), endpoint })
    }

    pub fn request(&self, method: &str, path: &str) -> request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.target.host))
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send(self.request("GET", path).body(Bytes::new())?, None).await
    }

    /// Sends the head, and leaves the rest to the caller.
    pub async fn begin(&self, request: Request<()>) -> anyhow::Result<Stream> {
        Ok(timeout(self.target.patience, self.sender.clone().send_request(request)).await??)
    }

    /// Sends a whole request, in pieces of 16 KiB, and takes in the whole response.
    pub async fn send(&self, request: Request<Bytes>, trailers: Option<HeaderMap>) -> anyhow::Result<Reply> {
        let began = Instant::now();
        let (head, mut body) = request.into_parts();
        let stream = self.begin(Request::from_parts(head, ())).await?;
        let (mut send, mut recv) = stream.split();
        let sending = async {
            while !body.is_empty() {
                send.send_data(body.split_to(body.len().min(16 * 1024))).await?;
            }
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).await?;
            }
            send.finish().await
        };
        let receiving = async {
            let mut response = recv.recv_response().await?;
            while response.status().is_informational() {
                response = recv.recv_response().await?;
            }
            let mut body = BytesMut::new();
            while let Some(mut piece) = recv.recv_data().await? {
                let length = piece.remaining();
                body.extend_from_slice(&piece.copy_to_bytes(length));
            }
            let trailers = recv.recv_trailers().await?;
            anyhow::Ok((response, body.freeze(), trailers))
        };
        // A server may answer before it has got everything; what becomes of the rest is no matter then.
        let both = async { tokio::join!(sending, receiving) };
        let (_, received) =
            timeout(self.target.patience * 3, both).await.context("no whole answer in time")?;
        let (response, body, trailers) = received?;
        let (head, ()) = Response::into_parts(response);
        let mut headers = head.headers;
        for (name, value) in trailers.iter().flatten() {
            headers.append(format!("trailer-{name}").parse::<hyper::header::HeaderName>()?, value.clone());
        }
        Ok(Reply { status: head.status, version: head.version, headers, body, took: began.elapsed() })
    }

    /// Waits for the connection's end.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<quinn::ConnectionError> {
        match timeout(within, self.quic.closed()).await {
            Ok(error) => Ok(error),
            Err(_) => bail!("the connection did not end in {within:?}"),
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}
