//! Finds a server for a connection and connects to it: through splits and failovers, and on to the next where one can't be
//! reached. Nothing of the client's was sent by then, so that costs nobody anything.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::counters::Open;
use crate::{
    address::PeerAddr,
    balance::{Tried, key},
    clock::Moment,
    config::model::Offload,
    handover::{self, Keeper, Lease, NotConnected, ServerSide},
    proxy_protocol::{self, Ends},
    service::{Server, Service, UnderWay},
    upstream::outcome::Watch,
    variants::{MadeOf, by_client, figures::Failure, split::Split},
};

/// Whose connection wants to get there.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'x> {
    pub client: &'x TcpStream,
    pub peer: PeerAddr,
    pub local: SocketAddr,
    /// Who could have the kernel carry it.
    pub keeper: Option<&'x Arc<Keeper>>,
}

/// A server that takes it.
#[derive(Debug)]
pub struct Reached {
    pub stream: TcpStream,
    /// The one that has the server.
    pub service: Arc<Service>,
    pub index: usize,
    /// To connect.
    pub took: Duration,
    pub open: Open,
    /// The port, if the connection was made so that it can be handed to the kernel.
    pub lease: Option<Lease>,
    /// Counts as long as it is held.
    pub under_way: UnderWay,
}

/// A server that could not be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    #[serde(serialize_with = "text")]
    pub upstream: Arc<str>,
    pub failed: &'static str,
    pub us: u64,
}

type Reaching<'x> = Pin<Box<dyn Future<Output = Option<Reached>> + 'x>>;

/// `None`: no server can be reached.
pub fn reach<'x>(
    service: &'x Arc<Service>,
    asking: Asking<'x>,
    attempts: &'x mut Vec<Attempt>,
) -> Reaching<'x> {
    match &service.made_of {
        None => Box::pin(among_servers(service, asking, attempts)),
        Some(MadeOf::Split(split)) => Box::pin(through_split(split, asking, attempts)),
        Some(MadeOf::Failover(parts)) => Box::pin(through_failover(parts, asking, attempts)),
        // The configuration has no such route; what answers is the right one all the same.
        Some(MadeOf::Mirror(mirror)) => reach(&mirror.service, asking, attempts),
    }
}

async fn through_split(split: &Split, asking: Asking<'_>, attempts: &mut Vec<Attempt>) -> Option<Reached> {
    let weights = split.weights();
    let client = key::of_client(asking.peer.ip());
    let pick = |may: &dyn Fn(usize) -> bool| {
        let names = split.variants.iter().map(|variant| &*variant.service.name);
        by_client::pick(&split.name, names.zip(weights.each.iter().copied()), client, may)
    };
    let mut tried: u64 = 0;
    let mut next = pick(&|_| true);
    while let Some(index) = next {
        tried |= 1 << index;
        let variant = &split.variants[index];
        let well = |index: usize| tried >> index & 1 == 0 && split.variants[index].service.can_answer();
        let another = || if split.falls_over() { pick(&well) } else { None };
        // Who isn't well is only asked when nobody else is.
        let better = if variant.service.can_answer() { None } else { another() };
        if better.is_none() {
            let began = Instant::now();
            if let Some(reached) = reach(&variant.service, asking, attempts).await {
                variant.figures.answered(began.elapsed());
                return Some(reached);
            }
        }
        variant.figures.failed(Failure::Connection);
        next = better.or_else(another);
    }
    None
}

async fn through_failover(
    parts: &[Arc<Service>],
    asking: Asking<'_>,
    attempts: &mut Vec<Attempt>,
) -> Option<Reached> {
    let mut asked = false;
    for part in parts.iter().filter(|part| part.can_answer()) {
        asked = true;
        if let Some(reached) = reach(part, asking, attempts).await {
            return Some(reached);
        }
    }
    // Nobody is well: what the last one does then is what is done.
    let last = parts.last().filter(|_| !asked)?;
    reach(last, asking, attempts).await
}

async fn among_servers(
    service: &Arc<Service>,
    asking: Asking<'_>,
    attempts: &mut Vec<Attempt>,
) -> Option<Reached> {
    let mut watch = Watch::begin(service, Instant::now()).ok()?;
    let wanted = service.balancer.wanted_of_connection(asking.peer.ip());
    let mut tried = Tried::default();
    // In a service with more servers than places to note them, none is asked for ever.
    for _ in 0..service.servers.len() {
        let Some(picked) = service.pick(tried, wanted) else { break };
        tried.insert(picked.index);
        let (server, began) = (picked.server, Instant::now());
        let under_way = server.begin();
        let limit = service.timeouts.connect;
        let connected = timeout(limit, connect(service, server, asking)).await;
        let took = began.elapsed();
        let failed = match connected {
            Ok(Ok((stream, lease))) => {
                server.health.heard(Moment::of(Instant::now()));
                watch.reached(picked, None);
                let open = Open::begin(&server.counters.carrying);
                let service = service.clone();
                return Some(Reached { stream, service, index: picked.index, took, open, lease, under_way });
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => "refused",
            Ok(Err(_)) => "unreachable",
            Err(_) => "connect_timeout",
        };
        server.health.suspect();
        server.counters.carrying.failures.fetch_add(1, Ordering::Relaxed);
        watch.reached(picked, Some(failed));
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        attempts.push(Attempt { upstream: server.label.clone(), failed, us });
    }
    None
}

async fn connect(
    service: &Service,
    server: &Server,
    asking: Asking<'_>,
) -> io::Result<(TcpStream, Option<Lease>)> {
    let (mut stream, lease) = match to_hand_over(service, server, asking).await? {
        Some(ServerSide { stream, lease }) => (stream, Some(lease)),
        None => (TcpStream::connect(server.addr.0).await?, None),
    };
    // What comes is sent on as it comes: whoever wants fuller segments has made them.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(service.timeouts.unacknowledged))?;
    if let Some(version) = service.send_proxy {
        let ends = Ends { source: asking.peer.0, destination: asking.local };
        stream.write_all(&proxy_protocol::written(version, Some(ends))).await?;
    }
    Ok((stream, lease))
}

/// `None`: not asked for, or not possible.
async fn to_hand_over(
    service: &Service,
    server: &Server,
    asking: Asking<'_>,
) -> io::Result<Option<ServerSide>> {
    let Some(keeper) = asking.keeper.filter(|_| service.offload == Offload::SpliceKernel) else {
        return Ok(None);
    };
    match handover::connect(keeper, asking.client, server.addr.0).await {
        Ok(side) => Ok(Some(side)),
        Err(NotConnected::Refused(why)) => {
            tracing::debug!(%why, "a connection stays with the relay");
            Ok(None)
        }
        Err(NotConnected::Unreachable(error)) => Err(error),
    }
}

impl Reached {
    pub fn server(&self) -> &Server {
        &self.service.servers[self.index]
    }
}

fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
