//! Asks a running daemon over its admin address; what the command line speaks.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    #[error("no weir answers at {at}: {error}; does it run, and is this its admin address (`--admin`)?")]
    NoDaemon { at: String, error: io::Error },
    #[error("the daemon at {at} took longer than 5 s to answer")]
    Silent { at: String },
    #[error("the daemon at {at} broke off: {error}")]
    Broken { at: String, error: hyper::Error },
}

/// GETs `path` from the daemon at `addr`.
///
/// # Errors
/// When no daemon answers there.
pub async fn get(addr: &AdminAddr, path: &str) -> Result<(StatusCode, Bytes), AskFault> {
    let at = match addr {
        AdminAddr::Tcp(addr) => addr.to_string(),
        AdminAddr::Unix(path) => path.display().to_string(),
    };
    let asked = async {
        let no_daemon = |error| AskFault::NoDaemon { at: at.clone(), error };
        match addr {
            AdminAddr::Tcp(addr) => {
                exchange(TcpStream::connect(addr).await.map_err(no_daemon)?, path, &at).await
            }
            AdminAddr::Unix(socket) => {
                exchange(UnixStream::connect(socket).await.map_err(no_daemon)?, path, &at).await
            }
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(AskFault::Silent { at: at.clone() }))
}

async fn exchange<S>(stream: S, path: &str, at: &str) -> Result<(StatusCode, Bytes), AskFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let broken = |error| AskFault::Broken { at: at.to_owned(), error };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    if let Ok(target) = path.parse() {
        *request.uri_mut() = target;
    }
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("weir"));
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
