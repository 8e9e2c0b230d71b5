//! A server of allowlists in a lab: HTTPS at the internet's end of the edge's cable, and saying what a test wants.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{Lab, station::Station};

/// The edge's way to the internet.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254)), 8443);

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Says {
    /// 200 with this text and an entity tag of it; 304 to who has it.
    List(String),
    /// These bytes, and the end of the connection.
    Bytes(String),
    /// Nothing, and keeps the connection.
    Nothing,
}

#[derive(Debug)]
pub struct ListServer {
    shared: Arc<Mutex<Shared>>,
    _station: Station,
}

#[derive(Debug)]
struct Shared {
    says: Says,
    requests: Vec<String>,
}

impl ListServer {
    /// It listens when this returns.
    pub fn start(lab: &Lab, says: Says) -> anyhow::Result<Self> {
        let identity = lab.authority.issue(&[&ADDRESS.ip().to_string()])?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::new(Mutex::new(Shared { says, requests: Vec::new() }));
        let station = Station::open(&lab.internet)?;
        let listener = station
            .run(async { TcpListener::bind(ADDRESS).await })?
            .with_context(|| format!("can't listen on {ADDRESS}"))?;
        let known = Arc::clone(&shared);
        station.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    // A client that goes away early is the test's doing.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = answer(stream, &shared).await;
                    }
                });
            }
        });
        Ok(Self { shared, _station: station })
    }

    pub fn url(&self) -> String {
        format!("https://{ADDRESS}/list")
    }

    pub fn now_says(&self, says: Says) {
        self.lock().says = says;
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Mutex<Shared>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let says = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.requests.push(head.clone());
        shared.says.clone()
    };
    let bytes = match says {
        Says::List(text) => {
            let etag = etag(&text);
            if head.contains(&format!("if-none-match: {etag}\r\n")) {
                format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n")
            } else {
                format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            }
        }
        Says::Bytes(bytes) => bytes,
        Says::Nothing => return std::future::pending().await,
    };
    stream.write_all(bytes.as_bytes()).await?;
    stream.shutdown().await
}

fn etag(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}
