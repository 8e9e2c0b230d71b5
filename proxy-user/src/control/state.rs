//! What the admin API may know of the control side.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    allowlists::Board,
    clock::Moment,
    control::{forwarding, guard::Guard, kernel_side::State, reports::Watched},
    fleet::{member::Member, shared},
    handoff::lineage::Lineage,
    handover::Post,
    journal::{Kind, Note},
    maintenance::Maintenance,
    metrics::push::Pushes,
    privileges::InForce,
    providers,
    worker::{Running, crew::Crew},
};

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Embedded,
    Path(PathBuf),
}

/// Shared between the control side, which writes it, and the admin API, which reads it.
#[derive(Debug)]
pub struct ControlState {
    pub source: Source,
    pub started: Timestamp,
    /// Asked before a configuration is taken over.
    pub guard: Guard,
    /// The lists that are fetched.
    pub lists: Arc<Board>,
    /// This host in its fleet.
    pub member: Arc<Member>,
    /// What it and the others there tell each other.
    pub shared: Arc<shared::board::Board>,
    /// What is known of providers.
    pub providers: Arc<providers::Board>,
    /// What every snapshot looks at.
    pub maintenance: Arc<Maintenance>,
    /// What was given up at the start.
    pub privileges: InForce,
    /// What the kernel carries by port.
    pub forwarding: Arc<forwarding::Board>,
    /// What became of metrics that are pushed.
    pub pushes: Pushes,
    /// Who hands connections to the kernel that came in by name.
    pub handovers: Post,
    /// Daemons before this one that haven't ended yet.
    pub lineage: Arc<Lineage>,
    draining: AtomicBool,
    running: OnceLock<(Running, Arc<Crew>)>,
    changing: Mutex<Changing>,
}

#[derive(Debug, Clone)]
struct Changing {
    kernel: State,
    last_reload: Reload,
    trial: Option<OnTrial>,
    watched: Watched,
}

/// A configuration that waits for `weir confirm`.
#[derive(Debug, Clone)]
pub struct OnTrial {
    /// The file that was applied, as the operator called it.
    pub name: String,
    pub over: Instant,
    /// Why it could not be taken back yet.
    pub failed: Option<String>,
}

/// How the last attempt to take over a configuration ended.
#[derive(Debug, Clone)]
pub struct Reload {
    pub at: Timestamp,
    /// The generation that runs since, or why it was refused.
    pub outcome: Result<u64, String>,
}

impl ControlState {
    pub fn new(
        source: Source,
        guard: Guard,
        lists: Arc<Board>,
        providers: Arc<providers::Board>,
        privileges: InForce,
    ) -> Self {
        let started = Timestamp::now();
        let last_reload = Reload { at: started, outcome: Ok(0) };
        Self {
            source,
            started,
            guard,
            lists,
            member: Arc::default(),
            shared: Arc::default(),
            providers,
            maintenance: Arc::default(),
            privileges,
            forwarding: Arc::default(),
            pushes: Pushes::default(),
            handovers: Post::default(),
            lineage: Arc::default(),
            draining: AtomicBool::new(false),
            running: OnceLock::new(),
            changing: Mutex::new(Changing {
                kernel: State::default(),
                last_reload,
                trial: None,
                watched: Watched::default(),
            }),
        }
    }

    /// As the host that its providers know.
    #[must_use]
    pub fn with_member(self, member: Arc<Member>) -> Self {
        Self { member, ..self }
    }

    /// A configuration was taken over.
    pub fn applied(&self, generation: u64, kernel: &State) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        changing.kernel = kernel.clone();
        changing.last_reload = Reload { at: Timestamp::now(), outcome: Ok(generation) };
        drop(changing);
        let kind = if generation == 1 { Kind::Started } else { Kind::Reloaded };
        Note::new(kind, format!("configuration taken over as generation {generation}"))
            .generation(generation)
            .write();
    }

    /// The kernel side followed a change of the host.
    pub fn kernel_is(&self, kernel: &State) {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).kernel = kernel.clone();
    }

    /// A configuration was refused; the one before runs on.
    pub fn refused(&self, why: String) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        changing.last_reload = Reload { at: Timestamp::now(), outcome: Err(why.clone()) };
        drop(changing);
        Note::new(Kind::ReloadRefused, "the configuration was not taken over, the running one stays")
            .why(why)
            .write();
    }

    pub fn set_trial(&self, trial: Option<OnTrial>) {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).trial = trial;
    }

    pub fn on_trial(&self) -> Option<OnTrial> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).trial.clone()
    }

    /// From where the kernel watches connections to servers.
    pub fn set_watched(&self, watched: Watched) {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).watched = watched;
    }

    pub fn watched(&self) -> Watched {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).watched.clone()
    }

    /// Makes the running snapshot known. Only the first call counts: it is the same one for good.
    pub fn runs(&self, running: Running, crew: Arc<Crew>) {
        let _ = self.running.set((running, crew));
    }

    pub fn running(&self) -> Option<&Running> {
        self.running.get().map(|(running, _)| running)
    }

    /// How many connections each worker has.
    pub fn loads(&self) -> Vec<usize> {
        self.running.get().map_or_else(Vec::new, |(_, crew)| crew.loads())
    }

    /// When each worker ticked last.
    pub fn beats(&self) -> Vec<Moment> {
        self.running.get().map_or_else(Vec::new, |(_, crew)| crew.beats())
    }

    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to end.
    pub fn is_ending(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether it ends, or was told to take no more traffic (`weir drain --host`).
    pub fn is_draining(&self) -> bool {
        let host_drains = || self.running().is_some_and(|running| running.load().drains.host.is_on());
        self.is_ending() || host_drains()
    }

    pub fn kernel(&self) -> State {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).kernel.clone()
    }

    pub fn last_reload(&self) -> Reload {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).last_reload.clone()
    }
}
