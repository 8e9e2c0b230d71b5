//! Makes a valid configuration the running one: everything that can fail first, then one swap.
//!
//! 1. Its running form is built.
//! 2. Sockets that are new are opened.
//! 3. New servers are probed once.
//! 4. The kernel is reconciled.
//! 5. The snapshot is swapped, and the new sockets are handed out.
//! 6. What is not wanted any more goes.
//!
//! A fault in 1 to 4 leaves the running configuration as it was.

use std::{collections::HashMap, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::timeout;

use crate::{
    acme,
    address::{EntrypointAddr, ServerAddr},
    admin::{AdminFault, Doors},
    allowlists::keeper::Keeper,
    blocklist::Blocks,
    config::model::{Config, HealthCheck, ServerProtocol},
    connection::http3::steering,
    control::{
        kernel_side::{KernelSide, State},
        state::ControlState,
    },
    daemon_log, dns,
    drain::Drains,
    fleet::{member::Ends, sharing::Sharing},
    handoff::{
        estate::Inherited,
        sockets::{At, Sockets},
    },
    health::{Status, probe::Target, watcher::Watcher},
    kernel::{KernelFault, addresses::Changed, blocks::BlockedPrefix},
    listen::{self, ListenFault, Listener, Manner, Transport},
    providers, proxy_protocol,
    snapshot::{Snapshot, SnapshotFault},
    tls::{quic, server::ServerTls},
    worker::{Longest, Running, WorkerHandle, crew::Crew},
};

/// New servers are waited for no longer than this: the first probes of servers that hang must not hold up the rest.
const FIRST_PROBES: Duration = Duration::from_secs(1);

/// Why a configuration can't run here.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    #[error(transparent)]
    Snapshot(#[from] SnapshotFault),
    #[error(transparent)]
    Listen(#[from] ListenFault),
    #[error(transparent)]
    Kernel(#[from] KernelFault),
    #[error(transparent)]
    Admin(#[from] AdminFault),
    #[error("the system gives no worker: {0}")]
    Worker(io::Error),
}

/// All that runs by a configuration: workers, listening sockets, watchers, the kernel.
pub struct Fleet {
    running: Running,
    workers: Vec<WorkerHandle>,
    listening: Vec<Listening>,
    /// Sockets of UDP that were ours.
    let_go: Vec<Place>,
    watchers: HashMap<WatcherKey, Watching>,
    pub kernel: KernelSide,
    pub keeper: Keeper,
    pub acme: acme::keeper::Keeper,
    /// With the other hosts of a fleet.
    sharing: Sharing,
    /// Of what the names of servers mean.
    pub names: dns::keeper::Keeper,
    /// Where the admin API is served; nowhere until the fleet has started.
    pub doors: Option<Doors>,
    pub providers: providers::keeper::Keeper,
    /// Those of before, when a successor serves.
    gives_way: Option<tokio::task::JoinHandle<()>>,
}

type WatcherKey = (Arc<str>, ServerAddr);

/// What is spoken to servers.
type Speech = (ServerProtocol, Option<proxy_protocol::Version>);

/// A watcher, and by what it probes.
struct Watching {
    check: HealthCheck,
    speech: Speech,
    tls: Option<ServerTls>,
    _probes: Watcher,
}

/// Where something is listened for.
type Place = (EntrypointAddr, Transport);

type Opened = Vec<(Place, Vec<Listener>)>;

/// A place that is listened at.
struct Listening {
    place: Place,
    /// The workers' sockets once more, for who comes after this daemon.
    shared: Vec<OwnedFd>,
}

impl Fleet {
    /// Starts everything that the first configuration asks for.
    ///
    /// # Errors
    /// When it can't run here; then nothing is left behind, except that a gate from an earlier run stays.
    pub async fn start(
        mut config: Arc<Config>,
        workers: usize,
        state: &ControlState,
        blocks: Arc<Blocks>,
        blocked: Vec<BlockedPrefix>,
        drains: Arc<Drains>,
        inherited: &mut Inherited,
    ) -> Result<Self, ApplyFault> {
        state.lists.fill(Arc::make_mut(&mut config));
        let mut keeper = Keeper::new(state.lists.clone());
        let mut acme = acme::keeper::Keeper::default();
        let mut sharing = Sharing::new(acme.board.clone());
        let mut names = dns::keeper::Keeper::default();
        names.follow(&config).await;
        names.board.fill(Arc::make_mut(&mut config));
        if let Some(estate) = &mut inherited.estate {
            quic::take_token_secret(std::mem::take(&mut estate.token_secret));
        }
        let mut snapshot = Snapshot::new(config.clone(), &acme.board, None)?;
        snapshot.blocks = blocks;
        snapshot.names = names.board.clone();
        snapshot.maintenance = state.maintenance.clone();
        drains.mark(&snapshot.services);
        snapshot.drains = drains;
        if let Some(estate) = inherited.estate.take() {
            estate.resume(&mut snapshot);
        }
        let opened = open(&snapshot, &[], &[], workers, &mut inherited.sockets)?;
        let mut kernel = KernelSide::after(inherited.lock.take());
        kernel.block(blocked).await?;
        kernel.apply(&config, snapshot.generation).await?;
        if let State::Unavailable { why } = &kernel.state {
            tracing::warn!(
                "THE GATE IS NOT IN THE KERNEL: {why}. Allowlists are enforced at accept only, after the TCP handshake"
            );
        }
        let running: Running = Arc::new(ArcSwap::from_pointee(snapshot));
        let (crew, doors) = Crew::new(workers);
        state.runs(running.clone(), crew.clone());
        let handles = (0..)
            .zip(doors)
            .map(|(number, door)| {
                let handovers = state.handovers.clone();
                WorkerHandle::start(number, running.clone(), crew.clone(), handovers, door)
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(ApplyFault::Worker)?;
        keeper.follow(&config);
        acme.follow(&config, sharing.follow(&config));
        sharing.first_word().await;
        daemon_log::follow(&running.load().config.log);
        let mut fleet = Self {
            running,
            workers: handles,
            listening: Vec::new(),
            let_go: Vec::new(),
            watchers: HashMap::new(),
            kernel,
            keeper,
            acme,
            sharing,
            names,
            doors: None,
            providers: providers::keeper::Keeper::new(state.providers.clone()),
            gives_way: None,
        };
        let snapshot = fleet.running.load_full();
        fleet.watch_new_servers(&snapshot).await;
        fleet.hand_out(opened);
        Ok(fleet)
    }

    /// Makes `config` the running configuration, with what was fetched for its lists.
    ///
    /// # Errors
    /// When it can't run here; then the running one stays as it is.
    pub async fn apply(&mut self, mut config: Arc<Config>) -> Result<(), ApplyFault> {
        self.keeper.board.fill(Arc::make_mut(&mut config));
        self.names.follow(&config).await;
        self.names.board.fill(Arc::make_mut(&mut config));
        if let Err(fault) = self.replace(config.clone()).await {
            let running = self.running.load_full();
            self.names.follow(&running.config).await;
            return Err(fault);
        }
        self.keeper.follow(&config);
        self.acme.follow(&config, self.sharing.follow(&config));
        self.providers.follow(&config);
        Ok(())
    }

    /// Makes `config` the running configuration as it is. For what differs from the running one in its lists alone.
    ///
    /// # Errors
    /// When it can't run here; then the running one stays as it is.
    pub async fn replace(&mut self, config: Arc<Config>) -> Result<(), ApplyFault> {
        let before = self.running.load_full();
        let snapshot = Snapshot::new(config.clone(), &self.acme.board, Some(&before))?;
        let known: Vec<_> = self.listening.iter().map(|listening| listening.place).collect();
        let nothing = &mut Sockets::default();
        let opened = open(&snapshot, &known, &self.let_go, self.workers.len(), nothing)?;
        let doors = self.doors.as_ref();
        let missing = doors.map(|doors| doors.missing(&before.config.admin, &config.admin)).transpose()?;
        self.watch_new_servers(&snapshot).await;
        expect(&before, &snapshot);
        if let Err(fault) = self.kernel.apply(&config, snapshot.generation).await {
            before.entrypoints.iter().for_each(|entrypoint| entrypoint.admission.expect_nobody());
            self.watch_new_servers(&before).await;
            self.let_go(&before);
            missing.unwrap_or_default().give_up();
            return Err(fault.into());
        }

        let snapshot = Arc::new(snapshot);
        self.running.store(snapshot.clone());
        daemon_log::follow(&config.log);
        self.hand_out(opened);
        if let (Some(doors), Some(missing)) = (&mut self.doors, missing) {
            doors.follow(missing, &config.admin);
        }
        for worker in &self.workers {
            worker.renewed();
        }
        self.let_go(&snapshot);
        Ok(())
    }

    /// Asks the kernel once more for what the running configuration wants, since the host changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn reconcile_kernel(&mut self, changed: Changed) -> Result<(), KernelFault> {
        // Interfaces of others come and go all day long where containers run.
        if !changed.addresses && !self.kernel.interfaces_changed() {
            return Ok(());
        }
        let snapshot = self.running.load_full();
        self.kernel.apply(&snapshot.config, snapshot.generation).await
    }

    /// Has all workers ask new clients for no longer segments than these.
    pub fn announce(&self, longest: &Arc<Longest>) {
        for worker in &self.workers {
            worker.announce(longest.clone());
        }
    }

    pub fn running(&self) -> Running {
        self.running.clone()
    }

    pub fn generation(&self) -> u64 {
        self.running.load().generation
    }

    pub fn grace(&self) -> Duration {
        self.running.load().config.shutdown.grace
    }

    pub fn reopen_logs(&self) {
        self.running.load().access_logs.reopen();
    }

    /// Accepts no more, lets requests in flight end for up to `grace`, and ends the workers. Returns how many
    /// connections had to be cut off.
    pub async fn drain(mut self, grace: Duration) -> usize {
        // Nobody waits in a queue that is not taken from any more.
        self.listening.clear();
        let drained: Vec<_> = self.workers.iter().map(|worker| worker.drain(grace)).collect();
        let mut cut_off = 0;
        for worker in drained {
            // An error means that the worker is gone already.
            cut_off += worker.await.unwrap_or(0);
        }
        for worker in self.workers {
            worker.join();
        }
        self.providers.end(Ends::Host).await;
        if let Some(gives_way) = self.gives_way {
            let _ = gives_way.await;
        }
        let running = self.running.load();
        running.access_logs.settle();
        if let Some(tracer) = &running.tracer {
            tracer.settle();
        }
        cut_off
    }

    /// Starts watchers for servers that have none, or whose health check changed, and waits for their first word.
    async fn watch_new_servers(&mut self, snapshot: &Snapshot) {
        let mut new = Vec::new();
        for service in &snapshot.services {
            let Some(check) = &service.check else { continue };
            for server in &service.servers {
                let key = (service.name.clone(), server.addr);
                let speech = (service.protocol, service.send_proxy);
                let same = |known: &Watching| {
                    known.check == *check
                        && known.speech == speech
                        && ServerTls::same(known.tls.as_ref(), service.tls.as_ref())
                };
                if self.watchers.get(&key).is_some_and(same) {
                    continue;
                }
                let target = Target::new(
                    server.addr,
                    service.tls.clone(),
                    service.protocol,
                    service.send_proxy,
                    check.clone(),
                );
                let unknown = server.health.status() == Status::Starting;
                let watcher = Watcher::start(service.name.clone(), target, server.health.clone());
                if unknown {
                    new.push(watcher.first_probe());
                }
                let (check, tls) = (check.clone(), service.tls.clone());
                self.watchers.insert(key, Watching { check, speech, tls, _probes: watcher });
            }
        }
        let all = futures_util::future::join_all(new);
        if timeout(FIRST_PROBES, all).await.is_err() {
            tracing::warn!(
                "some servers have not answered their first probe yet: they get no requests until they do"
            );
        }
    }

    fn hand_out(&mut self, opened: Opened) {
        for (place, listeners) in opened {
            // Without a second descriptor a socket serves all the same; only a successor can't have it.
            let shared = listeners.iter().filter_map(|listener| listener.share().ok()).collect();
            for (worker, listener) in self.workers.iter().cycle().zip(listeners) {
                worker.listen(place, listener);
            }
            self.listening.push(Listening { place, shared });
        }
    }

    /// The sockets that are listened at, for who comes after this daemon.
    pub fn sockets(&self) -> impl Iterator<Item = (At, &[OwnedFd])> {
        self.listening.iter().map(|Listening { place: (at, transport), shared }| {
            let at = match transport {
                Transport::Tcp => At::Tcp(at.0),
                Transport::Udp | Transport::Datagrams => At::Udp(at.0),
            };
            (at, shared.as_slice())
        })
    }

    /// Those whose connections nobody has to find by their socket.
    pub fn sockets_but_http3s(&self) -> impl Iterator<Item = &OwnedFd> {
        self.listening
            .iter()
            .filter(|listening| listening.place.1 != Transport::Udp)
            .flat_map(|known| &known.shared)
    }

    /// A successor serves: accepts no more, and lets go of everything that only one daemon may do. Connections go on, and are told
    /// to end.
    pub async fn leave(&mut self) {
        for left in self.workers.iter().map(WorkerHandle::leave).collect::<Vec<_>>() {
            // An error means that the worker is gone already.
            let _ = left.await;
        }
        steering::leave();
        self.listening.clear();
        self.kernel = KernelSide::default();
        self.keeper = Keeper::new(self.keeper.board.clone());
        self.acme = acme::keeper::Keeper::default();
        self.sharing.end();
        let none = providers::keeper::Keeper::new(self.providers.board.clone());
        self.gives_way = Some(std::mem::replace(&mut self.providers, none).give_way());
        self.names = dns::keeper::Keeper::default();
        self.running.load().drains.host.leave();
    }

    /// Closes sockets and ends watchers that `snapshot` doesn't know.
    fn let_go(&mut self, snapshot: &Snapshot) {
        let (workers, let_go) = (&self.workers, &mut self.let_go);
        self.listening.retain(|&Listening { place: (at, transport), .. }| {
            let wanted = snapshot.listens(at, transport);
            if !wanted {
                workers.iter().for_each(|worker| worker.unlisten(at, transport));
                if transport != Transport::Tcp && !let_go.contains(&(at, transport)) {
                    let_go.push((at, transport));
                }
            }
            wanted
        });
        self.watchers.retain(|(service, addr), _| {
            let service = snapshot.services.iter().find(|known| known.name == *service);
            service.is_some_and(|service| {
                service.check.is_some() && service.servers.iter().any(|server| server.addr == *addr)
            })
        });
    }
}

/// The gate changes first: whom it lets in from then on must not be turned away at accept.
fn expect(before: &Snapshot, next: &Snapshot) {
    for entrypoint in &next.entrypoints {
        for known in before.entrypoints.iter().filter(|known| known.name == entrypoint.name) {
            known.admission.expect(&entrypoint.admission);
        }
    }
}

/// Opens a socket per worker for each address that isn't listened on yet. All or none.
fn open(
    snapshot: &Snapshot,
    listening: &[Place],
    let_go: &[Place],
    workers: usize,
    inherited: &mut Sockets,
) -> Result<Opened, ListenFault> {
    let mut opened = Vec::new();
    for (written, entrypoint) in snapshot.config.entrypoints.iter().zip(&snapshot.entrypoints) {
        let places =
            entrypoint.bind.iter().flat_map(|at| entrypoint.transports().map(|transport| (*at, transport)));
        for place in places.filter(|place| !listening.contains(place)) {
            let handed = inherited.take(place);
            if !handed.is_empty() {
                opened.push((place, listen::go_on(place, handed, workers, written.floating)));
                continue;
            }
            // `0.0.0.0:443` may take the place of `10.0.0.1:443`, which is still ours while we open it.
            // A socket of UDP that was let go stays until its connections have ended.
            let same_port =
                |known: &Place| known.0.0.port() == place.0.0.port() && known.1.shares_ports_with(place.1);
            let ours = listening.iter().chain(let_go).any(same_port);
            let manner = Manner { exclusive: !ours, floating: written.floating };
            opened.push((place, listen::listen(&entrypoint.name, place, workers, manner)?));
        }
    }
    Ok(opened)
}
