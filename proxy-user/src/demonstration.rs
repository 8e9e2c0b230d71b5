//! The built-in demonstration upstream: what the embedded default configuration routes to, so that `weir run`
//! shows something on a host where nothing else runs.

use std::{convert::Infallible, io, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

/// Listens on `addr` and answers every request with what it saw of it.
///
/// # Errors
/// When the address is taken.
pub async fn start(addr: SocketAddr) -> io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(addr).await?;
    Ok(tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            // A demonstration has nobody to tell about a broken connection.
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
    }))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut text = format!(
        "Weir works. This is its built-in demonstration upstream; it got this request:\n\n{} {}\n",
        request.method(),
        request.uri()
    );
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let mut response = Response::new(Full::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}
