//! Asks a running daemon over its admin address; what the command line speaks.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::config::model::AdminAddr;

/// A daemon that doesn't answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Orders may have to wait for first probes, for the kernel, and for other orders.
const PATIENCE_WITH_WORK: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    #[error("no weir answers at {at}: {error}; does it run, and is this its admin address (`--admin`)?")]
    NoDaemon { at: String, error: io::Error },
    #[error("the daemon at {at} took longer than {} s to answer", patience.as_secs())]
    Silent { at: String, patience: Duration },
    #[error("the daemon at {at} broke off: {error}")]
    Broken { at: String, error: hyper::Error },
}

/// GETs `path` from the daemon at `addr`.
///
/// # Errors
/// When no daemon answers there.
pub async fn get(addr: &AdminAddr, path: &str) -> Result<(StatusCode, Bytes), AskFault> {
    ask(addr, request(Method::GET, path, Bytes::new()), PATIENCE).await
}

/// POSTs `json` to the daemon at `addr`, which must be a socket to be listened to.
///
/// # Errors
/// When no daemon answers there. A refusal is an answer.
pub async fn post(
    addr: &AdminAddr,
    path: &str,
    json: &serde_json::Value,
) -> Result<(StatusCode, Bytes), AskFault> {
    ask(addr, request(Method::POST, path, json.to_string().into()), PATIENCE_WITH_WORK).await
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
    get(addr, "/ping").await.is_ok()
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    if let Ok(target) = path.parse() {
        *request.uri_mut() = target;
    }
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("weir"));
    request
}

async fn ask(
    addr: &AdminAddr,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), AskFault> {
    let at = match addr {
        AdminAddr::Tcp(addr) => addr.to_string(),
        AdminAddr::Unix(path) => path.display().to_string(),
    };
    let asked = async {
        let no_daemon = |error| AskFault::NoDaemon { at: at.clone(), error };
        match addr {
            AdminAddr::Tcp(addr) => {
                exchange(TcpStream::connect(addr).await.map_err(no_daemon)?, request, &at).await
            }
            AdminAddr::Unix(socket) => {
                exchange(UnixStream::connect(socket).await.map_err(no_daemon)?, request, &at).await
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
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
    };
    // The connection is driven beside the question, and ends with it.
    tokio::select! {
        answer = ask => answer.map_err(broken),
        () = async { drop(connection.await); std::future::pending().await } => unreachable!("pends for ever"),
    }
}
