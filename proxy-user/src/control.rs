//! The control side: loads configurations and makes them run, keeps the kernel and the health watchers in step,
//! answers the admin API, and listens to signals. It never stands in a request's way.

pub mod apply;
pub mod blocks;
pub mod certificates;
pub mod documents;
pub mod drains;
pub mod files;
pub mod floods;
pub mod forwarding;
mod handovers;
mod lame_duck;
pub mod guard;
pub mod install;
pub mod kernel_side;
pub mod lists;
pub mod maintenance;
pub mod names;
pub mod order;
pub mod pulse;
pub mod reports;
mod sharing;
pub mod splits;
pub mod state;
pub mod summary;
pub mod trial;
mod upgrading;
pub mod watchdog;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin::{self, AdminFault, Doors},
    allowlists::Board,
    clock::Moment,
    config::{self, Code, Diagnostic, Loaded, Report, diff, model::Server},
    control::{
        apply::{ApplyFault, Fleet},
        blocks::Blocking,
        certificates::Reported,
        drains::Draining,
        files::Files,
        floods::Floods,
        forwarding::Forwarding,
        guard::{Guard, Session},
        handovers::Handovers,
        install::Trials,
        lame_duck::LameDuck,
        maintenance::Maintaining,
        order::{Answer, Order, Refusal, Verb},
        pulse::Pulse,
        reports::Reports,
        sharing::{Manner, Owners, Sharing},
        splits::Splits,
        state::{ControlState, Source},
        upgrading::{Carriers, Upgrading},
    },
    demonstration,
    handoff::{heir::Heir, service_manager::Store, sockets::At, usher::Successor},
    journal::{self, Kind, Note},
    kernel::addresses,
    metrics::push,
    privileges::{self, PrivilegeFault},
    providers::{self, keeper::Keeper},
};

/// How `weir run` was asked to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// A file or folder; `None`: the embedded default.
    pub path: Option<PathBuf>,
    /// Worker threads; `None`: one per core that this process may use.
    pub workers: Option<usize>,
    /// Without the lock-out guard.
    pub force: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    #[error("{0}")]
    Config(Report),
    /// That may be another time.
    #[error("{report}\nnothing is known of what this needs: {away}")]
    Alone { away: String, report: Report },
    #[error(transparent)]
    Apply(#[from] ApplyFault),
    #[error("{0}")]
    LockOut(String),
    #[error(transparent)]
    Admin(#[from] AdminFault),
    #[error(transparent)]
    Privileges(#[from] PrivilegeFault),
    /// Root could read the configuration with all that it names, and who the daemon has become can't.
    #[error("{report}")]
    NotForUser { user: String, report: Report },
    /// It was to take over from another daemon.
    #[error("can't take over from the running daemon: {0}")]
    TakeOver(String),
    #[error("the demonstration upstream can't listen on {addr}: {error}")]
    Demonstration { addr: std::net::SocketAddr, error: std::io::Error },
    #[error("the system gives no {what}: {error}")]
    System { what: &'static str, error: std::io::Error },
}

/// Runs the daemon until it is told to end. Must run inside a local runtime.
///
/// # Errors
/// When it can't start; then nothing is left behind.
pub async fn run(options: Options) -> Result<(), StartFault> {
    let mut heir = Heir::arrive().map_err(StartFault::TakeOver)?;
    let outcome = live(options, &mut heir).await;
    if let Err(fault) = &outcome {
        heir.fails(fault.to_string());
    }
    outcome
}

async fn live(options: Options, heir: &mut Heir) -> Result<(), StartFault> {
    let mut upgrading = Upgrading::new();
    let source = options.path.clone().map_or(Source::Embedded, Source::Path);
    let mut providers = Keeper::new(Arc::default());
    let mut loaded = first_load(&source, &providers.board).map_err(StartFault::Config)?;
    let privileges = privileges::give_up(&loaded.config, &source, &heir.confined())?;
    if let Some(user) = &privileges.became {
        // What can't be read any more would be missed at the first reload otherwise.
        loaded = documents::first(&source, &providers.board)
            .map_err(|report| StartFault::NotForUser { user: user.clone(), report })?;
    }
    if providers.ask_new(&loaded.config).await {
        loaded = documents::load(&source, &providers.board).map_err(|report| match providers.away() {
            None => StartFault::Config(report),
            Some(away) => StartFault::Alone { away, report },
        })?;
    }
    warn(&loaded.warnings);
    let mut signals = Signals::new().map_err(|error| StartFault::System { what: "signal handler", error })?;
    let mut files = Files::start();
    files.watch(&watched(&source, &loaded.files));
    // What is kept on the disk is read after this: nobody else changes it any more.
    let mut inherited = heir.take().map_err(StartFault::TakeOver)?;
    let lists = Arc::<Board>::default();
    lists.fill(&mut loaded.config);
    let mut config = Arc::new(loaded.config);
    if let Source::Embedded = source {
        for addr in config.services.iter().flat_map(|service| &service.servers).flat_map(Server::addresses) {
            demonstration::start(addr).await.map_err(|error| StartFault::Demonstration { addr, error })?;
        }
    }

    let guard = Guard { off: options.force };
    guard.check(&config, None, Session::of_this_process()).map_err(StartFault::LockOut)?;
    let state = ControlState::new(source.clone(), guard, lists, providers.board.clone(), privileges);
    let state = Arc::new(state.with_member(providers.member.clone()));
    providers.member.runs(&state);
    let admin = admin::bind(&config.admin, &mut inherited.sockets)?;
    let workers = options.workers.unwrap_or_else(cores);
    let (mut blocking, blocked) = Blocking::at_start(&config);
    let mut maintaining = Maintaining::at_start(&config, state.maintenance.clone());
    let mut reported = Reports::begin(&config, &state);
    let mut draining = Draining::at_start(&config);
    let (blocks, drains) = (blocking.shared(), draining.shared());
    let mut fell_back = None;
    // What a start takes and fails with is closed, with who waits in its queues.
    let spare = if config.providers.is_empty() { None } else { Some(inherited.spare()) };
    let start = Fleet::start(
        config.clone(),
        workers,
        &state,
        blocks.clone(),
        blocked.clone(),
        drains.clone(),
        &mut inherited,
    );
    let mut fleet = match start.await {
        Ok(fleet) => {
            drop(spare);
            fleet
        }
        Err(fault) => {
            let Some(last) = documents::last_good(&source, &state.providers, &fault) else {
                return Err(fault.into());
            };
            (config, loaded.taken) = (Arc::new(last.config), last.taken);
            fell_back = Some(fault.to_string());
            inherited = spare.unwrap_or_default();
            Fleet::start(config.clone(), workers, &state, blocks, blocked, drains, &mut inherited).await?
        }
    };
    inherited.sockets.close_the_rest();
    fleet.providers = providers;
    fleet.providers.took(&loaded.taken, &config.state.dir);
    state.applied(fleet.generation(), &fleet.kernel.state);
    if let Some(why) = fell_back {
        state.refused(why);
    }
    let mut trials = Trials::at_start(&source, &state);
    let (desk, mut orders) = order::desk();
    fleet.doors = Some(admin::serve(admin, &state, &desk));
    if let Some(predecessor) = heir.serves() {
        let message = format!("this daemon has taken over from weir {}", predecessor.version);
        tracing::info!("{message}");
        Note::new(Kind::Upgraded, message).write();
        state.lineage.follow(predecessor, fleet.running());
    }
    tokio::task::spawn_local(journal::watch::look_on(fleet.running()));
    tokio::task::spawn_local(push::keep_pushing(state.clone()));
    tracing::info!("running on {workers} workers\n{}", summary::of(&source, &config, &fleet.kernel.state));
    notify(&[sd_notify::NotifyState::Ready]);

    let mut addresses = addresses_watch();
    let mut certificates = Reported::default();
    let mut hours = tokio::time::interval(certificates::LOOK);
    let mut floods = Floods::watch();
    let mut splits = Splits::at_start(&fleet);
    let mut pulse = Pulse::as_asked();
    let mut forwarding = Forwarding::new(state.forwarding.clone());
    let mut handovers = Handovers::new(state.handovers.clone());
    let mut store = Store::default();
    let mut sharing = Sharing::new(state.shared.clone());
    let mut lame_duck = LameDuck::default();
    let how = loop {
        keep_sockets(&mut store, &fleet);
        certificates.look(&fleet.running().load(), SystemTime::now());
        blocking.keep_up(&mut fleet).await;
        reported.follow(&fleet.running().load(), &state);
        splits.keep_up(&fleet);
        maintaining.keep_up(&fleet);
        forwarding.keep_up(&fleet).await;
        handovers.keep_up(&fleet).await;
        sharing.keep_up(&fleet);
        tokio::select! {
            signal = signals.next() => match signal {
                Asked::Reload if upgrading.is_under_way() => upgrading.reload_later(),
                Asked::Upgrade if upgrading.is_under_way() => {}
                Asked::Upgrade => {
                    upgrading.begin(Default::default(), None, &source, &state, &fleet.running().load().config);
                }
                Asked::Reload => {
                    notify(&[sd_notify::NotifyState::Reloading]);
                    let _ = reload(&source, &state, &mut fleet, &mut files).await;
                    notify(&[sd_notify::NotifyState::Ready]);
                }
                Asked::ReopenLogs => {
                    fleet.reopen_logs();
                    state.lineage.reopen_logs();
                }
                Asked::Drain if !lame_duck.begin(&fleet.running().load(), &state) => {}
                end @ (Asked::Drain | Asked::Stop) => break Ending::By(end),
            },
            () = lame_duck.over() => break Ending::By(Asked::Drain),
            news = upgrading.news() => {
                let carriers = Carriers { forwarding: &mut forwarding, handovers: &mut handovers };
                let took_over = upgrading.follow(news, &mut fleet, &state, &mut pulse, carriers).await;
                if let Some(successor) = took_over {
                    break Ending::For(successor);
                }
            }
            () = files.changed(), if !upgrading.is_under_way() => {
                let _ = reload(&source, &state, &mut fleet, &mut files).await;
            }
            Some(order) = orders.recv(), if !upgrading.is_under_way() => {
                let order = match order.for_upgrade() {
                    Ok((wanted, answer)) => {
                        let running = fleet.running().load_full();
                        upgrading.begin(wanted, Some(answer), &source, &state, &running.config);
                        continue;
                    }
                    Err(order) => *order,
                };
                let hands = Hands {
                    trials: &mut trials,
                    blocking: &mut blocking,
                    draining: &mut draining,
                    maintaining: &mut maintaining,
                    splits: &mut splits,
                    sharing: &mut sharing,
                };
                perform(order, &source, &state, &mut fleet, &mut files, hands).await;
            }
            event = sharing.next(), if !upgrading.is_under_way() => {
                let owners = Owners {
                    blocking: &mut blocking,
                    draining: &mut draining,
                    maintaining: &mut maintaining,
                    splits: &mut splits,
                };
                sharing.look(event, owners, &state.guard, &mut fleet).await;
            }
            () = blocking.due() => blocking.look(&mut fleet).await,
            () = pulse.due() => pulse.beat(&state),
            () = maintaining.due() => maintaining.look(&fleet),
            () = splits.due() => splits.look(&fleet),
            () = forwarding.due() => {}
            () = trials.over(), if !upgrading.is_under_way() => {
                let _ = install::revert(&source, &state, &mut fleet, &mut files, &mut trials).await;
            }
            _ = hours.tick() => {}
            () = fleet.names.news() => names::take(&mut fleet, &state).await,
            () = fleet.providers.news() => {
                let _ = reload(&source, &state, &mut fleet, &mut files).await;
            }
            news = fleet.keeper.news() => lists::take(news, &mut fleet, &state).await,
            () = floods.due() => floods.tell(&fleet.kernel),
            seen = reported.news() => reports::take(&seen, &fleet.running().load(), Moment::now()),
            changed = changed_addresses(&mut addresses) => {
                forwarding.host_changed();
                handovers.host_changed();
                if let Err(fault) = fleet.reconcile_kernel(changed).await {
                    tracing::error!(%fault, "this host's addresses or interfaces changed, and the gate could not follow");
                    let message = "this host's addresses or interfaces changed, and the gate could not follow";
                    Note::new(Kind::GateFailed, message).why(fault.to_string()).write();
                }
                state.kernel_is(&fleet.kernel.state);
            }
        }
    };

    // Whoever comes after hears of the others itself.
    drop(sharing);
    state.drains();
    let how = match how {
        Ending::By(how) => how,
        Ending::For(successor) => {
            upgrading.retire(fleet, successor, &mut signals, &state).await;
            return Ok(());
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    let grace = if how == Asked::Drain { fleet.grace() } else { Duration::ZERO };
    Note::new(Kind::Ending, "ending: no new connections, requests in flight may finish").write();
    tracing::info!(?grace, "ending: no new connections, requests in flight may finish");
    let cut_off = fleet.drain(grace).await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "connections were still open when the grace period was over");
    }
    push::push_the_last(&state).await;
    tracing::info!("ended; what the gate enforces stays (`weir kernel unload` removes it)");
    Ok(())
}

/// Why a daemon ends.
enum Ending {
    By(Asked),
    For(Successor),
}

/// Has the service manager keep what is listened on, for the next daemon.
fn keep_sockets(store: &mut Store, fleet: &Fleet) {
    if !Store::is_there() {
        return;
    }
    let mut sockets: Vec<(At, Vec<_>)> =
        fleet.sockets().map(|(at, sockets)| (at, sockets.iter().map(AsFd::as_fd).collect())).collect();
    let of_admin = fleet.doors.iter().flat_map(Doors::sockets);
    sockets.extend(of_admin.map(|(at, socket)| (at, vec![socket.as_fd()])));
    store.follow(&sockets);
}

/// What orders change, beside the configuration.
struct Hands<'a> {
    trials: &'a mut Trials,
    blocking: &'a mut Blocking,
    draining: &'a mut Draining,
    maintaining: &'a mut Maintaining,
    splits: &'a mut Splits,
    sharing: &'a mut Sharing,
}

impl Hands<'_> {
    fn owners(&mut self) -> Owners<'_> {
        Owners {
            blocking: self.blocking,
            draining: self.draining,
            maintaining: self.maintaining,
            splits: self.splits,
        }
    }
}

/// Does what was ordered over the admin API.
async fn perform(
    order: Order,
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
    mut hands: Hands<'_>,
) {
    let (verb, answer) = order.open();
    let shares = Manner::of(&verb).filter(|_| hands.sharing.is_on());
    let before = shares.map(|manner| (manner, sharing::switches(&hands.owners(), &fleet.running().load())));
    let Hands { trials, blocking, draining, maintaining, splits, .. } = &mut hands;
    let mut outcome = match verb {
        Verb::Reload(_) => reload(source, state, fleet, files)
            .await
            .map(|()| serde_json::json!({ "generation": fleet.generation() })),
        Verb::Apply(apply) => install::apply(apply, source, state, fleet, files, trials).await,
        Verb::Confirm(_) => install::confirm(state, fleet, trials),
        Verb::Revert(_) => install::revert(source, state, fleet, files, trials).await,
        Verb::Diff(asked) => difference(source, state, fleet, &asked.name, &asked.text).await,
        Verb::Block(wanted) => blocking.add(wanted, &state.guard, fleet).await,
        Verb::Unblock(wanted) => blocking.remove(wanted, fleet).await,
        Verb::Split(wanted) => splits.order(&wanted, fleet),
        Verb::Maintain(wanted) => maintaining.begin(wanted, fleet),
        Verb::EndMaintenance(wanted) => maintaining.end(&wanted, fleet),
        Verb::Drain(wanted) => draining.drain(wanted, &fleet.running().load()),
        Verb::Undrain(wanted) => draining.undrain(&wanted, &fleet.running().load()),
        Verb::Upgrade(_) => Err(Refusal::Busy("an upgrade begins elsewhere".to_owned())),
        // Fetching takes its time, and what it brings comes back as news.
        Verb::RefreshAllowlists(what) => {
            tokio::spawn(lists::refresh(what, state.lists.clone(), answer));
            return;
        }
    };
    if let (Some((manner, before)), Ok(outcome)) = (before, &mut outcome) {
        let now = sharing::switches(&hands.owners(), &fleet.running().load());
        if let Some(told) = hands.sharing.ordered(&before, &now, manner) {
            outcome["fleet"] = told.into();
        }
    }
    // What was only tried may have named others.
    fleet.providers.follow(&fleet.running().load().config);
    // Whoever asked may have gone away.
    let _ = answer.send(outcome);
}

/// What a configuration would change.
async fn difference(
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    name: &str,
    text: &str,
) -> Answer {
    let place = match source {
        Source::Embedded => Path::new(config::DEFAULT_PATH),
        Source::Path(path) => path,
    };
    let mut loaded = documents::try_text(place, Path::new(name), text, &mut fleet.providers)
        .await
        .map_err(|report| Refusal::Faulty(report.lines()))?;
    state.lists.fill(&mut loaded.config);
    let changes = diff::of(&fleet.running().load().config, &loaded.config);
    Ok(serde_json::json!({ "changes": changes, "warnings": loaded.warnings }))
}

/// Reads the configuration anew and makes it run; a faulty one changes nothing, and is in the log and in the status.
async fn reload(
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
) -> Result<(), Refusal> {
    reload_with(source, state, fleet, files, &state.guard).await
}

/// Whatever the lock-out guard says: what ran before may always run again.
async fn reload_unguarded(
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
) -> Result<(), Refusal> {
    reload_with(source, state, fleet, files, &Guard { off: true }).await
}

async fn reload_with(
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
    guard: &Guard,
) -> Result<(), Refusal> {
    let running = fleet.running().load_full();
    let mut loaded = match documents::reload(source, &mut fleet.providers, &running.config).await {
        Ok(loaded) => loaded,
        Err(report) => {
            fleet.providers.refused(&report.lines());
            fleet.providers.follow(&running.config);
            files.watch(&watched(source, &report.files));
            tracing::error!(
                "the configuration was not taken over, the running one stays:\n{}",
                report.lines()
            );
            state.refused(report.lines());
            return Err(Refusal::Faulty(report.lines()));
        }
    };
    files.watch(&watched(source, &loaded.files));
    warn(&loaded.warnings);
    state.lists.fill(&mut loaded.config);
    let config = Arc::new(loaded.config);
    if privileges::waits_for_a_restart(&running.config, &config) {
        tracing::warn!("[process] has changed: it is read at start, so this waits for a restart");
    }
    let possible =
        guard.check(&config, Some(&running.config), None).and_then(|()| state.privileges.allows(&config));
    let applied = match possible {
        Ok(()) => fleet.apply(config).await.map_err(|fault| fault.to_string()),
        Err(lock_out) => Err(lock_out),
    };
    match applied {
        Ok(()) => {
            fleet.providers.took(&loaded.taken, &fleet.running().load().config.state.dir);
            state.applied(fleet.generation(), &fleet.kernel.state);
            tracing::info!(generation = fleet.generation(), "configuration taken over");
            Ok(())
        }
        Err(fault) => {
            fleet.providers.refused(&fault);
            fleet.providers.follow(&running.config);
            tracing::error!(%fault, "the configuration was not taken over, the running one stays");
            state.refused(fault.clone());
            Err(Refusal::Refused(fault))
        }
    }
}

/// A trial whose time is over, or that can't be read, is taken back before anything else is done.
fn first_load(source: &Source, board: &providers::Board) -> Result<Loaded, Report> {
    install::settle_at_start(source, false);
    match documents::first(source, board) {
        Err(_) if install::settle_at_start(source, true) => documents::first(source, board),
        loaded => loaded,
    }
}

/// What to watch: all that was read, and the path itself, which may be missing or hold something new.
fn watched(source: &Source, read: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = read.to_vec();
    match source {
        Source::Path(path) if !files.contains(path) => files.push(path.clone()),
        Source::Path(_) | Source::Embedded => {}
    }
    files.retain(|file| !file.as_os_str().is_empty() && file.to_str() != Some(config::EMBEDDED_PATH));
    files
}

fn warn(warnings: &[Diagnostic]) {
    // What there is to say of certificates is said once, and not with every reload: see `certificates`.
    for warning in warnings.iter().filter(|warning| warning.code != Code::CertificateWarning) {
        tracing::warn!("{}\n{}", warning.line(), warning.hint_line());
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Tells systemd, if it asked to be told.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, pid = %Pid::this(), "systemd could not be notified");
    }
}

/// The host's own addresses, where the kernel tells of their changes.
fn addresses_watch() -> Option<addresses::AddressChanges> {
    addresses::AddressChanges::watch()
        .inspect_err(|error| {
            tracing::warn!(%error, "changes of this host's addresses and interfaces are not seen: reload after one");
        })
        .ok()
}

async fn changed_addresses(changes: &mut Option<addresses::AddressChanges>) -> addresses::Changed {
    let outcome = match changes {
        Some(changes) => changes.changed().await,
        None => std::future::pending().await,
    };
    outcome.unwrap_or_else(|error| {
        tracing::warn!(%error, "changes of this host's addresses and interfaces are not seen any more: reload after one");
        *changes = None;
        addresses::Changed::default()
    })
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// SIGHUP
    Reload,
    /// SIGUSR1
    ReopenLogs,
    /// SIGUSR2
    Upgrade,
    /// SIGTERM
    Drain,
    /// SIGINT
    Stop,
}

struct Signals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user1.recv() => Asked::ReopenLogs,
            _ = self.user2.recv() => Asked::Upgrade,
            _ = self.terminate.recv() => Asked::Drain,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }
}
