//! Keeps the kernel's port passthrough at what runs and at who is well: a server that goes down, drains, warms up or comes back gets
//! its share of new flows changed within a moment. And sweeps up after flows that are over.
//!
//! Without a gate there is none of it: what comes in is relayed by workers then.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{apply::Fleet, kernel_side::State};
use crate::{
    clock::Moment,
    config::model::{Config, Kernel, KernelMode},
    kernel::{
        KernelFault,
        forward::{self, Applied, Desired, ForwardStatus, Forwarder, Refused, Swept},
    },
    passthrough::{
        by_port::{self, ByPort, Way},
        flow_log,
    },
    snapshot::Snapshot,
};

/// How late a change of a server's health may be for new flows.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Ways to servers are asked for anew: a route may have changed, which nobody tells.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After a fault.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Sweeps take at most one part in so many of a core.
const SWEEP_SHARE: u32 = 20;

/// What the admin API may know of it.
#[derive(Default)]
pub struct Board {
    told: Mutex<Applied>,
    forwarder: Mutex<Option<Shared>>,
}

type Shared = Arc<Mutex<Forwarder>>;

pub struct Forwarding {
    board: Arc<Board>,
    forwarder: Option<Shared>,
    /// The verifier takes its time, and nobody has to wait for it: until then there is the relay, or what stands.
    opening: Option<JoinHandle<Result<Forwarder, KernelFault>>>,
    bpffs: PathBuf,
    /// What was last made of what.
    last: Option<(Vec<ByPort>, Kernel)>,
    /// What was last told in the log.
    told: BTreeSet<(String, String)>,
    asked: Instant,
    not_before: Instant,
    sweep: Instant,
    sweeping: Option<JoinHandle<Result<Swept, KernelFault>>>,
    host_changed: bool,
    looked: bool,
}

// === impl Board ===

impl Board {
    pub fn applied(&self) -> Applied {
        lock(&self.told).clone()
    }

    /// What was forwarded. Waits for the kernel. `None`: nothing is.
    pub fn figures(&self) -> Option<ForwardStatus> {
        let forwarder = lock(&self.forwarder).clone()?;
        let forwarder = lock(&forwarder);
        forwarder.status().ok()
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("told", &*lock(&self.told)).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Forwarding ===

impl Forwarding {
    pub fn new(board: Arc<Board>) -> Self {
        let now = Instant::now();
        Self {
            board,
            forwarder: None,
            opening: None,
            bpffs: PathBuf::new(),
            last: None,
            told: BTreeSet::new(),
            asked: now,
            not_before: now,
            sweep: now,
            sweeping: None,
            host_changed: false,
            looked: false,
        }
    }

    /// Resolves when it is time for [`Self::keep_up`]. Safe to cancel.
    pub async fn due(&self) {
        match &self.forwarder {
            Some(_) => sleep_until(Instant::now() + LOOK_EVERY).await,
            None if self.last.is_some() || self.opening.is_some() => {
                sleep_until(self.not_before.max(Instant::now() + LOOK_EVERY)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Addresses or interfaces have changed.
    pub fn host_changed(&mut self) {
        self.host_changed = true;
    }

    /// Looks whether the kernel still does what is wanted. Also to be called after each reload.
    pub async fn keep_up(&mut self, fleet: &Fleet) {
        let snapshot = fleet.running().load_full();
        let config = &snapshot.config;
        if self.forwarder.is_none() && self.opening.is_none() && !by_port::is_wanted(config) {
            // What an earlier daemon left goes on until its flows are over.
            let stands = !std::mem::replace(&mut self.looked, true) && forward::stands(&config.kernel.bpffs);
            if !stands {
                self.rest();
                return;
            }
        }
        self.looked = true;
        self.reconcile(&snapshot, &fleet.kernel.state).await;
        self.sweep_up(&snapshot).await;
    }

    fn rest(&mut self) {
        if self.last.take().is_some() {
            *lock(&self.board.told) = Applied::default();
            self.told.clear();
        }
    }

    async fn reconcile(&mut self, snapshot: &Snapshot, gate: &State) {
        let now = Instant::now();
        if now < self.not_before {
            return;
        }
        let config = &snapshot.config;
        let ports = by_port::all(snapshot, Moment::now());
        let wanted = (ports, config.kernel.clone());
        let asks = self.forwarder.is_some() && now >= self.asked + ASK_EVERY;
        if self.last.as_ref() == Some(&wanted) && !self.host_changed && !asks {
            return;
        }
        if self.bpffs != config.kernel.bpffs {
            self.bpffs.clone_from(&config.kernel.bpffs);
            self.forwarder = None;
        }
        if let (None, Some(why)) = (&self.forwarder, without_gate(config, gate)) {
            self.tell(refused(&wanted.0, &why));
            self.last = Some(wanted);
            self.host_changed = false;
            return;
        }
        if !self.opened(&wanted.0, config.kernel.max_flows).await {
            return;
        }
        self.host_changed = false;
        self.asked = now;
        match self.apply(config, snapshot.generation, wanted.0.clone()).await {
            Ok(applied) => self.tell(applied),
            Err(fault) => {
                self.not_before = now + AGAIN_AFTER;
                tracing::error!(%fault, "the kernel does not follow: new flows go where they went before");
            }
        }
        self.last = Some(wanted);
        let forwarder = self.forwarder.clone();
        *lock(&self.board.forwarder) = forwarder;
    }

    /// Whether there is something to apply to; begins to load it where there isn't.
    async fn opened(&mut self, ports: &[ByPort], max_flows: u32) -> bool {
        if self.forwarder.is_some() {
            return true;
        }
        let bpffs = self.bpffs.clone();
        let opening =
            self.opening.get_or_insert_with(|| spawn_blocking(move || Forwarder::open(&bpffs, max_flows)));
        if !opening.is_finished() {
            return false;
        }
        let outcome = opening.await;
        self.opening = None;
        match outcome {
            Ok(Ok(forwarder)) => {
                self.forwarder = Some(Arc::new(Mutex::new(forwarder)));
                true
            }
            failed => {
                let why = match failed {
                    Ok(Err(fault)) => fault.to_string(),
                    Ok(Ok(_)) => String::new(),
                    Err(error) => error.to_string(),
                };
                self.not_before = Instant::now() + AGAIN_AFTER;
                self.tell(refused(ports, &why));
                false
            }
        }
    }

    async fn apply(
        &mut self,
        config: &Config,
        generation: u64,
        ports: Vec<ByPort>,
    ) -> Result<Applied, KernelFault> {
        let Some(forwarder) = self.forwarder.clone() else { return Ok(Applied::default()) };
        let desired = Desired {
            generation,
            interfaces: config.kernel.interfaces.clone(),
            mode: config.kernel.mode,
            nat_ports: config.kernel.nat_ports.by_port(),
            max_flows: config.kernel.max_flows,
            ports,
        };
        blocking(move || lock(&forwarder).apply(&desired)).await
    }

    /// Says what has changed, once.
    fn tell(&mut self, applied: Applied) {
        let mut told = BTreeSet::new();
        for carried in &applied.carried {
            told.insert((carried.entrypoint.clone(), String::new()));
        }
        for one in &applied.refused {
            told.insert((one.entrypoint.clone(), one.why.clone()));
        }
        for (entrypoint, why) in told.difference(&self.told) {
            let refused = applied.refused.iter().find(|one| one.entrypoint == *entrypoint && one.why == *why);
            match refused {
                None => tracing::info!("entrypoint `{entrypoint}` is carried by the kernel"),
                Some(one) if one.wanted => tracing::info!("entrypoint `{entrypoint}` is relayed: {why}"),
                Some(_) => {
                    tracing::warn!(
                        "entrypoint `{entrypoint}` is relayed, and not carried by the kernel: {why}"
                    );
                }
            }
        }
        self.told = told;
        *lock(&self.board.told) = applied;
    }

    async fn sweep_up(&mut self, snapshot: &Snapshot) {
        if let Some(sweeping) = self.sweeping.take_if(|sweeping| sweeping.is_finished()) {
            let took = match sweeping.await {
                Ok(Ok(swept)) => {
                    flow_log::write(snapshot, &swept.ended, SystemTime::now());
                    swept.took
                }
                Ok(Err(fault)) => {
                    tracing::warn!(%fault, "flows that are over could not be removed");
                    AGAIN_AFTER
                }
                Err(_) => AGAIN_AFTER,
            };
            self.sweep = Instant::now() + SWEEP_EVERY.max(took * SWEEP_SHARE);
        }
        let Some(forwarder) = &self.forwarder else { return };
        if self.sweeping.is_none() && Instant::now() >= self.sweep {
            let forwarder = forwarder.clone();
            let tell = flow_log::is_wanted(snapshot);
            self.sweeping = Some(spawn_blocking(move || lock(&forwarder).sweep(tell)));
        }
    }
}

/// Why the kernel can't be asked at all.
fn without_gate(config: &Config, gate: &State) -> Option<String> {
    match gate {
        State::On(_) => None,
        State::Unavailable { why } => Some(why.clone()),
        State::NotWanted if config.kernel.mode == KernelMode::Off => {
            Some("`kernel.mode` is `off`".to_owned())
        }
        State::NotWanted => Some("no interface is named in `kernel.interfaces`".to_owned()),
    }
}

fn refused(ports: &[ByPort], why: &str) -> Applied {
    let refused = ports.iter().map(|port| Refused {
        entrypoint: port.entrypoint.to_string(),
        protocol: port.protocol.name(),
        service: port.service.to_string(),
        wanted: matches!(port.way, Way::Relay(_)),
        why: match &port.way {
            Way::Relay(why) => why.to_string(),
            Way::Kernel(_) => why.to_owned(),
        },
    });
    Applied { refused: refused.collect(), ..Applied::default() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelFault> + Send + 'static,
) -> Result<T, KernelFault> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(KernelFault::Other { doing: "work on the kernel".into(), why: error.to_string() })
    })
}
