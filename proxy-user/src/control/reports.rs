//! Takes what the kernel tells of connections to servers to the health of those servers: one that doesn't acknowledge is
//! suspected with its first segment that is sent again, whether or not a request waits for it.
//!
//! It is a help and nothing more. Where it can't be had, that is said once, and the daemon's own clocks have to do.

use std::net::SocketAddr;

use crate::{
    clock::Moment,
    config::model::{Cgroup, Config, KernelMode},
    control::state::ControlState,
    kernel::{
        KernelFault,
        upstream::{Kind, Seen, ServerWatch},
    },
    snapshot::Snapshot,
};

/// What the status tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Watched {
    /// `cgroup = "off"` or `mode = "off"`.
    #[default]
    NotWanted,
    From(String),
    Unavailable(String),
}

#[derive(Default)]
pub struct Reports {
    watch: Option<ServerWatch>,
    choice: Option<Cgroup>,
    /// Whose servers are named.
    generation: u64,
}

impl Reports {
    /// Before the first connection to a server is made. Needs a runtime around it.
    pub fn begin(config: &Config, state: &ControlState) -> Self {
        let mut reports = Self::default();
        reports.open(config, state);
        reports
    }

    fn open(&mut self, config: &Config, state: &ControlState) {
        let choice = match config.kernel.mode {
            KernelMode::Off => Cgroup::Off,
            KernelMode::Auto | KernelMode::Xdp | KernelMode::Tc => config.kernel.cgroup.clone(),
        };
        if self.choice.as_ref() == Some(&choice) {
            return;
        }
        // What was before goes first: the new one may want its group.
        self.watch = None;
        self.generation = 0;
        let watched = match ServerWatch::open(&choice) {
            Ok(None) => Watched::NotWanted,
            Ok(Some(watch)) => {
                let group = watch.group().display().to_string();
                tracing::debug!(group, "the kernel tells of what servers don't acknowledge");
                self.watch = Some(watch);
                Watched::From(group)
            }
            Err(fault) => {
                tell(&choice, &fault);
                Watched::Unavailable(fault.to_string())
            }
        };
        self.choice = Some(choice);
        state.set_watched(watched);
    }

    /// Names the servers of what runs now, if it is another configuration than the last time.
    pub fn follow(&mut self, running: &Snapshot, state: &ControlState) {
        if running.generation == self.generation {
            return;
        }
        self.open(&running.config, state);
        self.generation = running.generation;
        let Some(watch) = &mut self.watch else { return };
        let servers = running.services.iter().flat_map(|service| &service.servers);
        if let Err(fault) = watch.follow(servers.map(|server| server.addr.0)) {
            tracing::warn!(%fault, "the kernel can't tell of all servers what they don't acknowledge");
        }
    }

    /// Waits for what the kernel has seen.
    pub async fn news(&mut self) -> Vec<Seen> {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        match watch.reports().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "what the kernel sees of connections to servers can't be read any more");
                self.watch = None;
                Vec::new()
            }
        }
    }
}

/// Raises the suspicions that the kernel's reports are.
pub fn take(seen: &[Seen], running: &Snapshot, now: Moment) {
    for Seen { server, kind } in seen {
        let unacknowledged = *kind == Kind::Unacknowledged;
        // The same server may be in several services; and what isn't acknowledged concerns all of a host's ports.
        let meant = |addr: SocketAddr| addr == *server || (unacknowledged && addr.ip() == server.ip());
        let servers = running.services.iter().flat_map(|service| &service.servers);
        for server in servers.filter(|server| meant(server.addr.0)) {
            server.health.suspect_by_kernel(unacknowledged, now);
        }
    }
}

/// Asked for in so many words it is a fault; by default only a pity.
fn tell(choice: &Cgroup, fault: &KernelFault) {
    const WITHOUT: &str = "the kernel can't tell of what servers don't acknowledge: they are suspected by Weir's own clocks alone";
    match choice {
        Cgroup::At(_) => tracing::warn!(%fault, "{WITHOUT}"),
        Cgroup::Auto | Cgroup::Off => tracing::info!(%fault, "{WITHOUT}"),
    }
}
