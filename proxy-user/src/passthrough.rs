//! Connections that are carried to a server untouched: nothing is decrypted, nothing is changed.
//!
//! [`pass`] is the whole way of one: its name is looked at where names decide, its route found, a server reached, and bytes are
//! carried both ways until it ends. What no route takes is given back as it came, where there is TLS to end.

pub mod by_port;
pub mod client_hello;
pub mod counters;
pub mod datagrams;
pub mod flow_log;
pub mod peek;
pub mod pipes;
pub mod reach;
pub mod record;
mod refusal;
pub mod relay;
pub mod routes;

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{net::TcpStream, time::Instant};

use self::{
    client_hello::{Hello, Unreadable},
    counters::Lost,
    peek::Looked,
    reach::{Asking, Reached, reach},
    record::Record,
    refusal::{Alert, alert, reset},
    relay::{pass_reset_on, relay},
    routes::{Route, Routes},
};
use crate::{
    access_log::connections::{By, End},
    address::PeerAddr,
    clock::Moment,
    connection::crowd::Place,
    handover::{self, Keeper, Limits, Refused, ServerSide, Terms, ending::LINGER},
    hygiene::patience::Stall,
    page::Page,
    service::Service,
    snapshot::Entrypoint,
    tls::entrypoint::Terminator,
    worker::Worker,
};

/// A client has this long for its hello.
const HELLO: Duration = Duration::from_secs(10);

/// Where it isn't needed, since there is a route for what has no name: in protocols in which the server speaks first, clients
/// wait for it.
const HELLO_IF_ANY: Duration = Duration::from_secs(3);

/// A connection that has come in.
#[derive(Debug)]
pub struct Came {
    pub stream: TcpStream,
    pub peer: PeerAddr,
    /// The address that it came to.
    pub local: SocketAddr,
    pub place: Place,
}

/// What becomes of it.
#[derive(Debug)]
pub enum Onward {
    /// It is over.
    Over,
    /// Its TLS ends here. Nothing of it was taken.
    Terminate(Came, Option<Outage>),
}

/// No server can be reached: whoever asks for anything over this connection gets the page.
#[derive(Debug)]
pub struct Outage {
    pub page: Arc<Page>,
    pub service: Arc<Service>,
    pub route: Arc<str>,
}

/// Carries a connection to where its route leads, until it ends.
pub async fn pass(worker: &Rc<Worker>, entrypoint: &Entrypoint, routes: &Routes, came: Came) -> Onward {
    let mut record = Record::begin(worker.log.clone(), came.peer.0, entrypoint.name.clone());

    // 1. What does it ask for?
    let terminator = entrypoint.tls.as_deref();
    let looked = match (routes.by_name(), &routes.others) {
        (false, _) => None,
        (true, None) => Some(peek::hello(&came.stream, &worker.pipes, HELLO).await),
        (true, Some(_)) => Some(peek::hello(&came.stream, &worker.pipes, HELLO_IF_ANY).await),
    };
    let hello = match &looked {
        Some(Looked::Hello(hello)) => Some(hello),
        _ => None,
    };

    // 2. Where does it lead?
    let named = hello.and_then(|hello| hello.name.as_deref()).and_then(|name| routes.find(name));
    let route = named.filter(|_| !is_for_us(terminator, hello)).or(routes.others.as_ref());
    let Some(route) = route.filter(|_| !matches!(looked, Some(Looked::Closed))) else {
        if terminator.is_some() && matches!(looked, Some(Looked::Late)) {
            entrypoint.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
            return Onward::Over;
        }
        if terminator.is_some() {
            // A hello of no use there is none here either, and answered as it always was.
            return Onward::Terminate(came, None);
        }
        record.counts();
        if let Some(why) = lost(looked.as_ref()) {
            entrypoint.counters.hellos.count(why);
        }
        record.sni = hello.and_then(|hello| hello.name.clone());
        record.over(End::NoRoute, By::Weir);
        turn_away(came.stream, looked.as_ref(), Alert::UnrecognizedName).await;
        return Onward::Over;
    };
    record.counts();
    record.sni = hello.and_then(|hello| hello.name.clone());
    record.route = Some(route.name.clone());

    // 3. Who takes it?
    let keeper = worker.handovers.keeper();
    let asking = Asking { client: &came.stream, peer: came.peer, local: came.local, keeper: keeper.as_ref() };
    let Some(reached) = reach(&route.service, asking, &mut record.attempts).await else {
        tracing::debug!(route = %route.name, "no server can be reached");
        return match outage(terminator, route, hello) {
            Some(outage) => {
                record.over(End::Page, By::Weir);
                Onward::Terminate(came, Some(outage))
            }
            None => {
                record.over(End::Unreachable, By::Weir);
                turn_away(came.stream, looked.as_ref(), Alert::InternalError).await;
                Onward::Over
            }
        };
    };
    record.reached(&reached);

    // 4. Bytes go both ways: in the kernel, where that is asked for and can be.
    if let Some((came, reached, record)) = hand_over(worker, keeper, came, reached, record).await {
        carry(worker, came, reached, record).await;
    }
    Onward::Over
}

/// An ACME authority that asks this host, and not the server, for a proof.
fn is_for_us(terminator: Option<&Terminator>, hello: Option<&Hello>) -> bool {
    let (Some(terminator), Some(Hello { name: Some(name), wants_proof: true, .. })) = (terminator, hello)
    else {
        return false;
    };
    terminator.challenges().is_some_and(|board| board.challenge_config(name).is_some())
}

fn lost(looked: Option<&Looked>) -> Option<Lost> {
    Some(match looked? {
        Looked::Hello(_) => Lost::NoRoute,
        Looked::Other(Unreadable::NotTls) => Lost::NotTls,
        Looked::Other(Unreadable::Malformed) => Lost::Malformed,
        Looked::Other(Unreadable::TooLong) => Lost::TooLong,
        Looked::Closed => Lost::Closed,
        Looked::Late => Lost::Late,
    })
}

/// The page, if there is one and it can be shown for that name.
fn outage(terminator: Option<&Terminator>, route: &Route, hello: Option<&Hello>) -> Option<Outage> {
    let (page, name) = (route.on_outage.as_ref()?, hello?.name.as_deref()?);
    terminator?.holds(name).then(|| Outage {
        page: page.clone(),
        service: route.service.clone(),
        route: route.name.clone(),
    })
}

/// Ends a connection that goes nowhere. Whoever speaks TLS is told why.
async fn turn_away(stream: TcpStream, looked: Option<&Looked>, why: Alert) {
    match looked {
        Some(Looked::Hello(_)) => alert(stream, why).await,
        Some(Looked::Other(Unreadable::Malformed | Unreadable::TooLong)) => {
            alert(stream, Alert::DecodeError).await;
        }
        Some(Looked::Other(Unreadable::NotTls) | Looked::Closed | Looked::Late) | None => reset(&stream),
    }
}

/// Hands it to the kernel and waits for its end; gives it back if that can't be.
async fn hand_over(
    worker: &Worker,
    keeper: Option<Arc<Keeper>>,
    came: Came,
    mut reached: Reached,
    mut record: Record,
) -> Option<(Came, Reached, Record)> {
    let (Some(keeper), Some(lease)) = (keeper, reached.lease.take()) else {
        return Some((came, reached, record));
    };
    let timeouts = &reached.service.timeouts;
    let limits = Limits { idle: timeouts.idle, lifetime: timeouts.lifetime, linger: LINGER };
    let Came { stream, peer, local, place } = came;
    let Reached { stream: server, service, index, took, open, under_way, .. } = reached;
    let terms = Terms { service: &service.name, limits };
    match handover::hand_over(&keeper, stream, ServerSide { stream: server, lease }, terms) {
        Ok(end) => {
            record.handed_over();
            // When this host's daemon ends, nobody has to wait: the flow goes on, and is the next one's.
            let ended = tokio::select! {
                ended = end => ended.ok(),
                () = worker.closing() => None,
            };
            if let Some(ended) = ended {
                let counters = open.counters();
                counters.to_server.fetch_add(ended.bytes_from_client, Ordering::Relaxed);
                counters.to_client.fetch_add(ended.bytes_from_server, Ordering::Relaxed);
                record.ended_in_the_kernel(&ended);
            }
            drop((place, under_way));
            None
        }
        Err(refused) => {
            let Refused { why, client: stream, server } = *refused;
            tracing::debug!(%why, "a connection stays with the relay");
            let Some(ServerSide { stream: server, lease }) = server else {
                reset(&stream);
                record.over(End::Reset, By::Server);
                return None;
            };
            let came = Came { stream, peer, local, place };
            Some((
                came,
                Reached { stream: server, service, index, took, open, lease: Some(lease), under_way },
                record,
            ))
        }
    }
}

/// Carries bytes until either side ends it, or its time is over.
async fn carry(worker: &Rc<Worker>, came: Came, reached: Reached, record: Record) {
    let timeouts = &reached.service.timeouts;
    // Fails only if the client is gone.
    let _ = SockRef::from(&came.stream).set_tcp_user_timeout(Some(timeouts.unacknowledged));
    let lifetime = timeouts.lifetime.map(|lifetime| Instant::now() + lifetime);
    let mut stall = Stall::new(worker.patience.clone(), timeouts.idle);
    let (health, counters) = (&reached.server().health, reached.open.counters());
    let to_server = |bytes: u64| {
        counters.to_server.fetch_add(bytes, Ordering::Relaxed);
    };
    let to_client = |bytes: u64| {
        health.heard(Moment::recent());
        counters.to_client.fetch_add(bytes, Ordering::Relaxed);
    };
    let ended = {
        let relay =
            relay(&came.stream, &reached.stream, &worker.pipes, &record.carried, [&to_server, &to_client]);
        tokio::select! {
            biased;
            ended = stall.watch(relay) => ended.ok_or(End::Idle),
            () = relay::until(lifetime) => Err(End::Lifetime),
        }
    };
    match ended {
        Ok(how) => {
            if let relay::Ended::Broken(side, error) = &how {
                tracing::debug!(%error, by = side.name(), "a connection that is carried broke");
                pass_reset_on(match side {
                    relay::Side::Client => &reached.stream,
                    relay::Side::Server => &came.stream,
                })
                .await;
            }
            record.ended(&how);
        }
        Err(end) => {
            // Both are told that it isn't all: what was cut must not look whole.
            reset(&came.stream);
            reset(&reached.stream);
            record.over(end, By::Weir);
        }
    }
    // Its place in the crowd is free only now.
    drop(came);
}
