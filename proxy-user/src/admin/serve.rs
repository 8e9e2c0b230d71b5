//! Takes the admin connections and has them answered, on the control side's own thread. Bounded: what somebody opens and
//! leaves lying costs no more than its place.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Listener, access::Peer, unread::Unread};
use crate::{
    acme::Board,
    config::model::{AdminTls, Alpn, CipherSuites, EntrypointTls, TlsVersion, UnknownHost},
    control::state::ControlState,
    tls::{certificates::Certificates, entrypoint::Terminator},
};

/// So many connections at each address; more are closed at once.
const MOST: usize = 512;

/// What is sent may be left lying so long: else whoever asks and doesn't read keeps a place for good.
const UNREAD: Duration = Duration::from_secs(30);

/// A handshake or the head of a request may take so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is connected to an address that is given up may stay so long: an order's answer is on its way, perhaps that of the very
/// order.
const FAREWELL: Duration = Duration::from_secs(5);

/// After an accept that failed: descriptors have run out, or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// TLS as it is configured now.
#[derive(Default)]
struct Tls {
    made_of: Option<Arc<Certificates>>,
    acceptor: Option<TlsAcceptor>,
}

/// Serves what comes in at one address, until it is given up or `leaves` says that somebody else goes on with it: then only what is
/// being answered, for a while. Its connections end with it.
pub(super) async fn at(
    listener: Listener,
    app: Router,
    state: Arc<ControlState>,
    mut leaves: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    let mut tls = Tls::default();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = left(&mut leaves) => break,
        };
        let (accepted, exposed) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "an admin connection can't be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if open.len() >= MOST {
            continue;
        }
        let (app, leaves) = (app.clone(), leaves.clone());
        match accepted {
            Accepted::Tcp(stream, from) if exposed => match tls.now(&state) {
                Ok(acceptor) => drop(open.spawn(over_tcp(stream, from, acceptor, app, leaves))),
                Err(error) => tracing::warn!(%error, "`[admin] tls` can't be used: a connection was closed"),
            },
            Accepted::Tcp(stream, from) => drop(open.spawn(over_tcp(stream, from, None, app, leaves))),
            Accepted::Unix(stream) => {
                let peer = Peer::Unix { uid: stream.peer_cred().ok().map(|peer| peer.uid()) };
                open.spawn(answer(stream, peer, app, leaves));
            }
        }
    }
    drop(listener);
    let _ = timeout(FAREWELL, async { while open.join_next().await.is_some() {} }).await;
}

/// Who comes, and whether others than this host's own can come there.
async fn accept(listener: &Listener) -> io::Result<(Accepted, bool)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            let exposed = listener.local_addr().is_ok_and(|at| !at.ip().is_loopback());
            Ok((Accepted::Tcp(stream, from), exposed))
        }
        Listener::Unix(listener) => {
            listener.accept().await.map(|(stream, _)| (Accepted::Unix(stream), false))
        }
    }
}

/// Resolves when the address is given up, or somebody else goes on with the socket.
async fn left(leaves: &mut watch::Receiver<bool>) {
    // An error means that whoever would say so is gone: the address is given up.
    let _ = leaves.wait_for(|leaves| *leaves).await;
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn over_tcp(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    app: Router,
    leaves: watch::Receiver<bool>,
) {
    // A peer that is gone is noticed so, too.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
    let Some(acceptor) = acceptor else {
        return answer(stream, Peer::Tcp { from, certificate: false }, app, leaves).await;
    };
    match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            answer(stream, Peer::Tcp { from, certificate }, app, leaves).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake at an admin address failed"),
        Err(_) => {}
    }
}

async fn answer<S>(stream: S, peer: Peer, app: Router, mut leaves: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answered = app.call(request);
        async move { answered.await as Result<Response<Body>, _> }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Unread::new(stream, UNREAD)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = left(&mut leaves) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "an admin connection ended early");
    }
}

// === impl Tls ===

impl Tls {
    /// Made anew when the configuration has changed. `None`: there is none, and nobody gets in without the token then.
    fn now(&mut self, state: &ControlState) -> io::Result<Option<TlsAcceptor>> {
        let wanted = state.running().and_then(|running| running.load().config.admin.tls.clone());
        let Some(wanted) = wanted else {
            *self = Self::default();
            return Ok(None);
        };
        let same = self.made_of.as_ref().is_some_and(|made_of| Arc::ptr_eq(made_of, &wanted.certificates));
        if !same {
            let config = config(&wanted).map_err(io::Error::other)?;
            *self = Self { made_of: Some(wanted.certificates), acceptor: Some(TlsAcceptor::from(config)) };
        }
        Ok(self.acceptor.clone())
    }
}

/// As at an entrypoint, with nothing but HTTP/1.1.
fn config(tls: &AdminTls) -> Result<Arc<ServerConfig>, rustls::Error> {
    let tls = EntrypointTls {
        certificates: tls.certificates.clone(),
        store: false,
        acme: Vec::new(),
        unknown_host: UnknownHost::Default,
        expiry_warning: Duration::ZERO,
        min_version: TlsVersion::V1_2,
        ciphers: CipherSuites::Intermediate,
        alpn: vec![Alpn::Http11],
        clients: tls.clients.clone(),
        client_headers: false,
        hosts: Vec::new(),
    };
    Ok(Terminator::new(&tls, &Arc::<Board>::default(), None)?.everywhere().config.clone())
}
