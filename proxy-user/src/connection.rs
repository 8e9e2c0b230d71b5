//! The life of a connection, from accept to its end. A table of contents: the stages are elsewhere.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering,
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    address::{EntrypointAddr, PeerAddr},
    identity::spell_peer,
    request::{self, Caller},
    worker::{LocalExecutor, Worker},
};

/// A client has this long for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client has this long to send a request's head, and a connection may be idle for as long.
const HEAD: Duration = Duration::from_secs(60);

/// A connection as the kernel handed it over.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: PeerAddr,
    pub at: EntrypointAddr,
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, peer, at } = accepted;
    // 1. Where did it come in? (A reload may have taken the entrypoint away a moment ago.)
    let snapshot = worker.snapshot();
    let Some(entrypoint) = snapshot.entrypoint(at).cloned() else { return };

    // 2. May it come in? The gate has asked already where it stands; where it doesn't, this is the gate.
    let is_listed = entrypoint.admission.admits(peer.ip());
    let is_blocked = is_listed && snapshot.blocks.refuse(peer.ip(), || entrypoint.cdn.contains(peer.ip()));
    drop(snapshot);
    if !is_listed || is_blocked {
        if !entrypoint.admission.shadow {
            let counters = &entrypoint.counters;
            let turned_away = if is_blocked { &counters.blocked } else { &counters.not_listed };
            turned_away.fetch_add(1, Ordering::Relaxed);
            reset(&stream);
            return;
        }
        entrypoint.counters.would_turn_away.fetch_add(1, Ordering::Relaxed);
    }
    entrypoint.counters.accepted.fetch_add(1, Ordering::Relaxed);
    // Answers are written whole: waiting to fill a segment only delays them. Fails only if the client is gone.
    let _ = stream.set_nodelay(true);

    // 3. TLS, then HTTP.
    let tls = entrypoint.tls.clone();
    let caller = Rc::new(Caller { worker, entrypoint: entrypoint.clone(), peer: spell_peer(peer), at });
    match tls {
        None => speak_http1(stream, caller).await,
        Some(tls) => match timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => {
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    speak_http2(stream, caller).await;
                } else {
                    speak_http1(stream, caller).await;
                }
            }
            Ok(Err(_)) | Err(_) => {
                entrypoint.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
            }
        },
    }
}

async fn speak_http1<S>(stream: S, caller: Rc<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let worker = caller.worker.clone();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| request::answer(caller.clone(), request)),
        )
        .with_upgrades();
    until_it_ends(connection, http1::UpgradeableConnection::graceful_shutdown, &worker).await;
}

async fn speak_http2<S>(stream: S, caller: Rc<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let worker = caller.worker.clone();
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| request::answer(caller.clone(), request)),
        );
    until_it_ends(connection, http2::Connection::graceful_shutdown, &worker).await;
}

/// Drives a connection; when the worker drains, it is told to end after what it has begun.
async fn until_it_ends<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end_gracefully: impl FnOnce(Pin<&mut C>),
    worker: &Worker,
) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = worker.closing() => {
            end_gracefully(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave in many ways, and none of them is our trouble.
        tracing::debug!(%error, "connection ended");
    }
}

/// Turns a peer away with a reset, so that it neither waits nor costs a TIME_WAIT.
fn reset(stream: &TcpStream) {
    // Fails only if the peer is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
