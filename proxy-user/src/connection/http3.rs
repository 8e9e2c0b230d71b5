//! Connections that speak HTTP/3, from the first datagram on: QUIC is accepted, encrypted and timed by quinn, over one
//! socket per worker and address.

mod body;
mod early;
pub mod framing;
mod quic;
mod resets;
pub mod settings;
pub mod steering;
mod stream;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::UdpSocket,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

pub use self::{
    body::{Body, BodyFault},
    early::Listener,
};
use self::{
    resets::Resets,
    steering::{Elder, Ids, Steered},
};
use super::HANDSHAKE;
use crate::{
    address::{EntrypointAddr, PeerAddr},
    connection::crowd::Place,
    hygiene::{Fault, patience::Stall},
    identity::{Trust, TrustedSource, spell_peer},
    request::Caller,
    snapshot::Entrypoint,
    tls::{entrypoint::Terminator, handshake::Session},
    worker::{Stop, Worker},
};

/// While more handshakes than this are under way at a socket, a client has to show that it is where it says before it
/// costs more than a datagram: the addresses of a flood are invented.
const UNPROVEN: usize = 64;

/// What a head may be longer in its frame than `limits.head`: to tell a client that its head is too large, it must be
/// looked at.
const LOOKED_AT: u64 = 4;

/// From the word that a connection ends to its last one: requests that are on their way then are still answered.
const ON_THEIR_WAY: Duration = Duration::from_millis(100);

/// Requests may take so long after HTTP/3 was taken out of the configuration.
const TAKEN_AWAY: Duration = Duration::from_secs(5);

/// The code of a connection that just ends (RFC 9114, section 8.1).
const H3_NO_ERROR: u32 = 0x100;

/// One socket.
struct Door {
    at: EntrypointAddr,
    handshakes: Rc<Cell<usize>>,
    stopped: watch::Receiver<Stop>,
}

/// A client that may come in.
struct Arrival {
    entrypoint: Arc<Entrypoint>,
    tls: Arc<Terminator>,
    peer: PeerAddr,
    connecting: quinn::Connecting,
    place: Place,
    handshake: Handshake,
}

/// A handshake under way, counted until dropped.
struct Handshake(Rc<Cell<usize>>);

/// Takes connections until told to stop. Those that are there then are told to end.
pub async fn listen(
    worker: Rc<Worker>,
    at: EntrypointAddr,
    (socket, elders): (UdpSocket, Vec<Elder>),
    mut stopped: watch::Receiver<Stop>,
) {
    let config =
        worker.snapshot().entrypoint(at).and_then(|known| known.http3.as_ref()?.config.clone().into());
    let Some(config) = config else { return };
    let config = Arc::unwrap_or_clone(config);
    let mut ids = EndpointConfig::default();
    ids.cid_generator(|| Box::new(Ids));
    let endpoint = Steered::new(socket, elders).and_then(|socket| {
        Endpoint::new_with_abstract_socket(ids, Some(config), socket, Arc::new(TokioRuntime))
    });
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return tracing::error!(%at, %error, "can't listen for HTTP/3"),
    };
    let door = Rc::new(Door { at, handshakes: Rc::default(), stopped: stopped.clone() });
    loop {
        let incoming = tokio::select! {
            biased;
            incoming = endpoint.accept() => incoming,
            _ = stopped.wait_for(|stop| *stop != Stop::No) => break,
        };
        let Some(incoming) = incoming else { break };
        if let Some(arrival) = admit(&worker, &door, incoming) {
            let (worker, door) = (worker.clone(), door.clone());
            tokio::task::spawn_local(async move {
                let _counted = worker.count_connection();
                serve(worker, &door, arrival).await;
            });
        }
    }
    endpoint.set_server_config(None);
    if *stopped.borrow() == Stop::AtOnce {
        // A successor reads the socket, and passes on what is for connections that are here.
        return endpoint.wait_idle().await;
    }
    // Connections that are there were told to end. A socket that is taken away must not stay for long: while it is there
    // the kernel gives it datagrams that are meant for its successor.
    tokio::select! {
        () = endpoint.wait_idle() => {}
        () = worker.closing() => endpoint.wait_idle().await,
        () = tokio::time::sleep(TAKEN_AWAY) => {
            endpoint.close(quinn::VarInt::from_u32(H3_NO_ERROR), b"");
            endpoint.wait_idle().await;
        }
    }
}

/// Whether a client may come in: asked before anything is answered.
fn admit(worker: &Worker, door: &Door, incoming: Incoming) -> Option<Arrival> {
    // 1. Where did it come in? (A reload may have taken HTTP/3 away a moment ago.)
    let peer = PeerAddr(incoming.remote_address());
    let snapshot = worker.snapshot();
    let known = snapshot.entrypoint(door.at).and_then(|entrypoint| {
        Some((entrypoint.clone(), entrypoint.tls.clone()?, entrypoint.http3.as_ref()?.config.clone()))
    });
    let Some((entrypoint, tls, config)) = known else {
        incoming.ignore();
        return None;
    };

    // 2. May it come in? The gate has asked already where it stands; where it doesn't, this is the gate.
    let is_listed = entrypoint.admission.admits(peer.ip());
    let is_blocked = is_listed && snapshot.blocks.refuse(peer.ip(), || entrypoint.cdn.contains(peer.ip()));
    if !is_listed || is_blocked {
        let counters = &entrypoint.counters;
        if !entrypoint.admission.shadow {
            let turned_away = if is_blocked { &counters.blocked } else { &counters.not_listed };
            turned_away.fetch_add(1, Ordering::Relaxed);
            incoming.ignore();
            return None;
        }
        counters.would_turn_away.fetch_add(1, Ordering::Relaxed);
    }

    // 3. Is it there at all, and are there too many already?
    if door.handshakes.get() >= UNPROVEN && !incoming.remote_address_validated() {
        // It fails only for clients that have shown it.
        let _ = incoming.retry();
        return None;
    }
    entrypoint.counters.accepted.fetch_add(1, Ordering::Relaxed);
    let of_many = TrustedSource::trust(entrypoint.client_ip.as_ref(), peer) == Trust::Believed;
    let place = match entrypoint.crowd.enter(peer.ip(), of_many, &entrypoint.limits) {
        Ok(place) => place,
        Err(fault) => {
            entrypoint.counters.faults.count(fault);
            incoming.refuse();
            return None;
        }
    };
    match incoming.accept_with(config) {
        Ok(connecting) => {
            let handshake = Handshake::new(&door.handshakes);
            Some(Arrival { entrypoint, tls, peer, connecting, place, handshake })
        }
        Err(error) => {
            failed(&entrypoint, &error.to_string());
            None
        }
    }
}

/// Serves a connection until it ends.
async fn serve(worker: Rc<Worker>, door: &Door, arrival: Arrival) {
    let Arrival { entrypoint, tls, peer, connecting, place, handshake } = arrival;
    let connection = match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return failed(&entrypoint, &error.to_string()),
        Err(_) => return failed(&entrypoint, "it took too long"),
    };
    drop(handshake);
    let session = session(&tls, &connection);
    let local =
        connection.local_ip().map_or(door.at.0, |local| (local.to_canonical(), door.at.0.port()).into());
    let caller = Rc::new(Caller {
        worker,
        entrypoint,
        peer: spell_peer(peer),
        at: door.at,
        local,
        session: Some(session),
        link: Rc::default(),
        requests: Cell::new(0),
        place,
        handshake: None,
        outage: None,
    });
    speak(connection, caller, door.stopped.clone()).await;
    // What the client is told at the end is on its way when the connection's own task has run.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

fn failed(entrypoint: &Entrypoint, why: &str) {
    entrypoint.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(entrypoint = %entrypoint.name, why, "a QUIC handshake failed");
}

/// What the handshake has told.
fn session(tls: &Terminator, connection: &quinn::Connection) -> Session {
    let told = connection.handshake_data().and_then(|told| told.downcast::<HandshakeData>().ok());
    let chain =
        connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let name = told.as_ref().and_then(|told| told.server_name.as_deref());
    tls.quic_session(name, chain.as_deref().map_or(&[], Vec::as_slice))
}

/// How a connection's end comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// The client was told to begin nothing new.
    Told(Instant),
    /// It was told what was the last that is answered.
    Settled,
}

/// Serves requests until the connection ends.
async fn speak(connection: quinn::Connection, caller: Rc<Caller>, mut stopped: watch::Receiver<Stop>) {
    let limits = &caller.entrypoint.limits;
    let longest_frame = (limits.head as u64).saturating_mul(LOOKED_AT);
    let settling = ON_THEIR_WAY.max(connection.rtt() * 2);
    let resets = Rc::new(Resets::of(&connection, &caller));
    let (quic, requests) = quic::Connection::new(connection, longest_frame);
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.head as u64).send_grease(false);
    let mut http = match builder.build::<_, Bytes>(quic).await {
        Ok(http) => http,
        Err(error) => return tracing::debug!(%error, "connection ended"),
    };

    let running = Running::default();
    let mut idle = pin!(running.none_for(Stall::new(caller.worker.patience.clone(), limits.keep_alive)));
    let mut ending = Ending::No;
    loop {
        let settles = match ending {
            Ending::Told(at) => at,
            Ending::No | Ending::Settled => Instant::now() + HANDSHAKE,
        };
        let told = tokio::select! {
            biased;
            accepted = http.accept() => match accepted {
                Ok(Some(request)) => {
                    let Some(ticket) = requests.ticket(request.frame_stream.id()) else { continue };
                    tokio::task::spawn_local(running.one(stream::serve(caller.clone(), request, ticket, resets.clone())));
                    continue;
                }
                // The client has said that it wants no more, and has got everything.
                Ok(None) => break,
                Err(error) => {
                    // Clients leave in many ways, and few of them are our trouble.
                    if error.is_h3_no_error() {
                        tracing::debug!("connection ended");
                    } else {
                        tracing::debug!(%error, "connection ended");
                    }
                    break;
                }
            },
            () = running.none(), if ending == Ending::Settled => break,
            () = sleep_until(settles), if matches!(ending, Ending::Told(_)) => {
                ending = Ending::Settled;
                requests.refuse_more();
                http.shutdown(1).await
            }
            () = idle.as_mut(), if ending == Ending::No => {
                ending = Ending::Told(Instant::now() + settling);
                http.shutdown(limits.streams as usize).await
            }
            () = caller.worker.host_drains_after(&caller.requests), if ending == Ending::No => {
                ending = Ending::Told(Instant::now() + settling);
                http.shutdown(limits.streams as usize).await
            }
            () = over(&caller.worker, &mut stopped), if ending == Ending::No => {
                ending = Ending::Told(Instant::now() + settling);
                http.shutdown(limits.streams as usize).await
            }
        };
        if told.is_err() {
            break;
        }
    }
}

/// Resolves when the worker drains, or its socket is taken away.
async fn over(worker: &Worker, stopped: &mut watch::Receiver<Stop>) {
    tokio::select! {
        () = worker.closing() => {}
        // An error means that nobody is there to take it away.
        _ = stopped.wait_for(|stop| *stop != Stop::No) => {}
    }
}

/// The requests of a connection that are being answered.
#[derive(Debug, Default)]
struct Running(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: Cell<usize>,
    none: tokio::sync::Notify,
    /// Whoever counts how long there has been none.
    counts: RefCell<Option<Waker>>,
}

struct Counted(Rc<Shared>);

impl Running {
    fn one<F: Future<Output = ()>>(&self, stream: F) -> impl Future<Output = ()> + use<F> {
        self.0.count.set(self.0.count.get() + 1);
        let counted = Counted(self.0.clone());
        async move {
            let _counted = counted;
            stream.await;
        }
    }

    async fn none(&self) {
        while self.0.count.get() > 0 {
            self.0.none.notified().await;
        }
    }

    /// Resolves when there has been none for as long as `stall` allows.
    fn none_for(&self, mut stall: Stall) -> impl Future<Output = ()> + use<> {
        let shared = self.0.clone();
        // The library wakes the connection at the end of most requests, but not of those that it never understood.
        poll_fn(move |cx| {
            if shared.count.get() > 0 {
                stall.moves();
                *shared.counts.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if stall.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            self.0.none.notify_waiters();
            if let Some(counts) = self.0.counts.take() {
                counts.wake();
            }
        }
    }
}

impl Handshake {
    fn new(under_way: &Rc<Cell<usize>>) -> Self {
        under_way.set(under_way.get() + 1);
        Self(under_way.clone())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What is wrong with a request before it is looked at more closely, counted where nobody answers it.
fn count(caller: &Caller, fault: Fault) {
    caller.entrypoint.counters.faults.count(fault);
}
