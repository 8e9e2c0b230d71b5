//! What is known of connections that the kernel carries: who looks after them until they end, and takes them over from a
//! predecessor.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proxy_common::translate::{Flow, FlowKey, HELD_FOR, Tally, seen, side, stage};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
};

use super::{
    Lease, Limits, Why,
    ending::{self, How},
    now,
    ports::Ports,
};
use crate::kernel::{
    KernelFault,
    translate::{Translation, ends},
};

/// How often it is looked whether a server has acknowledged what it was sent at first.
const SETTLE_EVERY: Duration = Duration::from_millis(10);
/// How often it is looked which connections have ended.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A server that hasn't acknowledged anything by then is gone.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);

/// A connection that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Ended {
    /// The service's name, as [`proxy_common::translate::service`] has it.
    pub service: u64,
    pub client: SocketAddr,
    pub entrypoint: SocketAddr,
    pub server: SocketAddr,
    pub how: How,
    /// Payload that came from the client since it was handed over, and from the server. What is sent again counts again.
    pub bytes_from_client: u64,
    pub bytes_from_server: u64,
    pub packets: u64,
    /// Since it was handed over.
    pub lasted: Duration,
}

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Standing {
    /// Connections that the kernel carries now.
    pub carried: usize,
    /// By this daemon.
    pub handed_over: u64,
    pub ended: u64,
    /// Connections that stayed with the relay, by reason.
    pub refused: BTreeMap<String, u64>,
    /// That went from one connection into the other.
    pub packets: u64,
    /// Packets with selective acknowledgements among them.
    pub selective: u64,
    /// Dropped, and to be sent again, while their connections were handed over.
    pub held: u64,
    /// Dropped for other reasons.
    pub dropped: u64,
    /// Too long for the way on, which their senders were told.
    pub too_long: u64,
    /// ICMP errors that were passed on.
    pub errors: u64,
}

/// Who is told of the end of what a predecessor has handed over: nobody waits for it.
pub type Heir = Box<dyn Fn(Ended) + Send + Sync>;

/// Knows all that are carried.
pub struct Keeper {
    kernel: Translation,
    ports: Mutex<Ports>,
    /// By the client's direction.
    known: Mutex<HashMap<FlowKey, Known>>,
    pending: Mutex<Vec<Pending>>,
    wake: Notify,
    handed_over: AtomicU64,
    ended: AtomicU64,
    refused: Mutex<HashMap<Why, u64>>,
    heir: Heir,
}

pub(super) struct Known {
    pub server: FlowKey,
    pub service: u64,
    /// `None` for what a predecessor has handed over: its port is noted all the same.
    pub lease: Option<Lease>,
    pub limits: Limits,
    /// Who waits for the end, if it is this process's. Else it is the heir's.
    pub at_end: Option<oneshot::Sender<Ended>>,
}

/// A server's connection whose socket may have to send the first bytes again.
pub(super) struct Pending {
    pub client: FlowKey,
    pub server: FlowKey,
    pub end: u32,
    pub since: Instant,
    /// Silent, so that whatever ends it says nothing to the server.
    pub _socket: TcpStream,
}

impl Keeper {
    /// Loads the program, attaches it to these interfaces and takes over what a predecessor has handed to the kernel.
    /// `entries`: the local ports of clients' connections. `ports`: those towards servers, which nobody else may use.
    /// `limits` hold for what is taken over and says nothing of its own; `heir` is told of its end.
    pub fn open(
        bpffs: &Path,
        interfaces: &[&str],
        entries: &[u16],
        ports: RangeInclusive<u16>,
        limits: Limits,
        heir: Heir,
    ) -> Result<Arc<Self>, KernelFault> {
        let kernel = Translation::open(bpffs)?;
        let mut known = HashMap::new();
        let mut pool = Ports::of(ports);
        // What was held by a predecessor that died over it is the stack's.
        for (key, flow) in kernel.flows()? {
            if flow.stage == stage::HELD {
                kernel.remove(&key)?;
            }
        }
        for (client, flow) in kernel.flows()?.into_iter().filter(|(_, flow)| flow.side == side::CLIENT) {
            let server = flow.other_side();
            let (address, edge) = ends(&server);
            pool.occupy(address, edge.port(), fastrand::usize(..));
            let limits = Limits::noted_in(&flow, limits);
            known.insert(client, Known { server, service: flow.service, lease: None, limits, at_end: None });
        }
        let in_use: Vec<u16> = known.keys().map(|client| ends(client).1.port()).collect();
        let own = pool.range().clone();
        let occupied: Vec<u16> = known.values().map(|known| ends(&known.server).1.port()).collect();
        kernel.watch(own.chain(entries.iter().copied()).chain(in_use).chain(occupied))?;
        kernel.attach(interfaces)?;
        Ok(Arc::new(Self {
            kernel,
            ports: Mutex::new(pool),
            known: Mutex::new(known),
            pending: Mutex::default(),
            wake: Notify::new(),
            handed_over: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            refused: Mutex::default(),
            heir,
        }))
    }

    /// Follows a new configuration: these interfaces, these ports of clients' connections besides those that are in use.
    pub fn follow(&self, interfaces: &[&str], entries: &[u16]) -> Result<(), KernelFault> {
        let known: Vec<_> = lock(&self.known).iter().map(|(client, known)| (*client, known.server)).collect();
        let in_use = known.iter().flat_map(|(client, server)| [ends(client).1.port(), ends(server).1.port()]);
        let own = lock(&self.ports).range().clone();
        self.kernel.watch(own.chain(entries.iter().copied()).chain(in_use))?;
        self.kernel.attach(interfaces)
    }

    /// Looks after them for as long as it is polled.
    pub async fn look_after(self: Arc<Self>) {
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let settles = async {
                if lock(&self.pending).is_empty() {
                    self.wake.notified().await;
                }
                tokio::time::sleep(SETTLE_EVERY).await;
            };
            tokio::select! {
                () = settles => self.settle(),
                _ = sweeps.tick() => self.sweep(),
            }
        }
    }

    /// Closes sockets that aren't needed any more.
    pub fn settle(&self) {
        let pending = std::mem::take(&mut *lock(&self.pending));
        let mut waiting = Vec::new();
        for one in pending {
            let flow = match self.kernel.flow(&one.server) {
                Ok(flow) => flow,
                Err(fault) => {
                    tracing::warn!(%fault, "could not look after a handed-over connection");
                    waiting.push(one);
                    continue;
                }
            };
            let Some(flow) = flow else { continue };
            let is_acknowledged = flow.acked.wrapping_sub(one.end).cast_signed() >= 0;
            if is_acknowledged || flow.seen & seen::RESET != 0 {
                continue;
            }
            if one.since.elapsed() < GIVE_UP_AFTER {
                waiting.push(one);
            } else {
                self.end(&one.client, How::Unanswered);
            }
        }
        lock(&self.pending).extend(waiting);
    }

    /// Finds out which connections have ended.
    pub fn sweep(&self) {
        let all: Vec<_> =
            lock(&self.known).iter().map(|(client, known)| (*client, known.server, known.limits)).collect();
        for (client, server, limits) in all {
            let flows = self.kernel.flow(&client).and_then(|up| Ok((up, self.kernel.flow(&server)?)));
            let how = match flows {
                Ok((Some(up), Some(down))) => ending::ending(&up, &down, &limits, now()),
                // The kernel forgets one when a new connection comes in its place, and it was closed then.
                Ok((Some(up), None)) => Some(ending::closed(&up)),
                Ok((None, _)) => Some(How::Closed(ending::Who::Client)),
                Err(fault) => {
                    tracing::warn!(%fault, "could not look after a handed-over connection");
                    None
                }
            };
            if let Some(how) = how {
                self.end(&client, how);
            }
        }
        self.forget_left_behind();
        lock(&self.ports).tidy(Instant::now());
    }

    /// How things stand.
    pub fn standing(&self) -> Result<Standing, KernelFault> {
        let Tally { translated, selective, held, fragments, unreadable, expired, too_long, errors } =
            self.kernel.tally()?;
        let refused = lock(&self.refused);
        Ok(Standing {
            carried: lock(&self.known).len(),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            refused: refused.iter().map(|(why, count)| (why.name().to_owned(), *count)).collect(),
            packets: translated,
            selective,
            held,
            dropped: fragments + unreadable + expired,
            too_long,
            errors,
        })
    }

    pub(super) const fn kernel(&self) -> &Translation {
        &self.kernel
    }

    pub(super) fn count_refused(&self, why: Why) {
        *lock(&self.refused).entry(why).or_default() += 1;
    }

    pub(super) fn keep(&self, client: FlowKey, known: Known) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        // One of the same name had ended, and nobody had looked yet.
        let before = lock(&self.known).insert(client, known);
        if let Some(before) = before {
            self.tell(&client, before, None, None, How::Closed(ending::Who::Client));
        }
    }

    pub(super) fn settle_later(&self, pending: Pending) {
        lock(&self.pending).push(pending);
        self.wake.notify_one();
    }

    pub(super) fn take_port(&self, server: SocketAddr) -> Option<u16> {
        lock(&self.ports).take(server, Instant::now(), fastrand::usize(..))
    }

    pub(super) fn give_port_back(&self, server: SocketAddr, port: u16) {
        lock(&self.ports).give_back(server, port, Instant::now());
    }

    fn end(&self, client: &FlowKey, how: How) {
        let Some(known) = lock(&self.known).remove(client) else { return };
        let flow = |key| self.kernel.flow(key).ok().flatten();
        let (up, down) = (flow(client), flow(&known.server));
        for key in [client, &known.server] {
            if let Err(fault) = self.kernel.remove(key) {
                tracing::warn!(%fault, "an ended connection stays in the kernel's table");
            }
        }
        self.tell(client, known, up, down, how);
    }

    fn tell(&self, client: &FlowKey, known: Known, up: Option<Flow>, down: Option<Flow>, how: How) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let (peer, entrypoint) = ends(client);
        let (server, edge) = ends(&known.server);
        if known.lease.is_none() {
            self.give_port_back(server, edge.port());
        }
        let (up, down) = (up.unwrap_or_default(), down.unwrap_or_default());
        let last = up.last.max(down.last);
        let ended = Ended {
            service: known.service,
            client: peer,
            entrypoint,
            server,
            how,
            bytes_from_client: up.bytes,
            bytes_from_server: down.bytes,
            packets: up.packets + down.packets,
            lasted: Duration::from_nanos(last.saturating_sub(up.begun)),
        };
        match known.at_end {
            // Who handed it over may be gone.
            Some(at_end) => drop(at_end.send(ended)),
            None => (self.heir)(ended),
        }
    }

    /// Entries that nobody knows: of attempts that could not be undone.
    fn forget_left_behind(&self) {
        let known = lock(&self.known).len();
        let Ok(flows) = self.kernel.flows() else { return };
        if flows.len() <= known * 2 {
            return;
        }
        let now = now();
        for (key, flow) in flows {
            let is_old = now.saturating_sub(flow.begun) > HELD_FOR * 2;
            let client = if flow.side == side::SERVER { flow.other_side() } else { key };
            if is_old && !lock(&self.known).contains_key(&client) {
                let _ = self.kernel.remove(&key);
            }
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("carried", &lock(&self.known).len()).finish_non_exhaustive()
    }
}

/// Somebody who panicked has left it as good as any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
