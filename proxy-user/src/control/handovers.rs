//! Has the kernel carry connections that were handed to it (`offload = "splice-kernel"`): by the interfaces and ports that the
//! configuration names. Without a gate there is none of it, and the relay carries them.

mod announce;
mod inherited;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::net::if_::if_indextoname;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking, spawn_local},
};

use super::{apply::Fleet, kernel_side::State};
use crate::{
    config::model::{Carries, Offload},
    handover::{Ended, Keeper, Limits, Post, ending::LINGER},
    kernel::{KernelFault, route},
    snapshot::Snapshot,
    worker::Longest,
};

/// How often ways to servers are asked for anew.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is taken over, and says nothing of limits of its own.
const TAKEN_OVER: Limits = Limits { idle: Duration::from_secs(3600), lifetime: None, linger: LINGER };

pub struct Handovers {
    post: Post,
    keeper: Option<Arc<Keeper>>,
    /// Looks after what is carried, and writes down the end of what was taken over.
    at_work: Vec<JoinHandle<()>>,
    /// What was last made of what, from which snapshot, and when that was looked at.
    last: Option<Wanted>,
    looked: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    bpffs: PathBuf,
    interfaces: BTreeSet<String>,
    entries: Vec<u16>,
    ports: std::ops::RangeInclusive<u16>,
    longest: Arc<Longest>,
}

impl Handovers {
    pub const fn new(post: Post) -> Self {
        Self { post, keeper: None, at_work: Vec::new(), last: None, looked: None }
    }

    /// Addresses or interfaces have changed.
    pub fn host_changed(&mut self) {
        self.looked = None;
    }

    /// To be called after each reload, and now and then: ways to servers may change, which nobody tells. Costs nothing in between.
    pub async fn keep_up(&mut self, fleet: &Fleet) {
        let snapshot = fleet.running().load_full();
        let config = &snapshot.config;
        let asked = config.services.iter().any(|service| service.offload == Offload::SpliceKernel);
        if self.keeper.is_none() && !(asked && matches!(fleet.kernel.state, State::On(_))) {
            return;
        }
        let now = Instant::now();
        let is_fresh = |(generation, then): (u64, Instant)| {
            generation == snapshot.generation && now.duration_since(then) < LOOK_EVERY
        };
        if self.looked.is_some_and(is_fresh) {
            return;
        }
        self.looked = Some((snapshot.generation, now));
        let wanted = wanted(&snapshot);
        if self.last.as_ref() == Some(&wanted) {
            return;
        }
        if self.last.as_ref().is_none_or(|last| last.longest != wanted.longest) {
            fleet.announce(&wanted.longest);
        }
        let (known, next) = (self.keeper.clone(), wanted.clone());
        let (tell, ended) = mpsc::unbounded_channel();
        let kept = spawn_blocking(move || keep(known, &next, tell)).await;
        match kept {
            Ok(Ok(keeper)) => {
                if self.keeper.is_none() {
                    self.at_work.push(tokio::spawn(keeper.clone().look_after()));
                    self.at_work.push(spawn_local(inherited::write_down(ended, fleet.running())));
                    self.post.appoint(keeper.clone());
                    tracing::info!(
                        "connections of services with `offload = \"splice-kernel\"` are handed to the kernel"
                    );
                }
                self.keeper = Some(keeper);
            }
            Ok(Err(fault)) => tracing::error!(
                %fault,
                "connections of services with `offload = \"splice-kernel\"` are not handed to the kernel as they should be: \
                 the relay carries them"
            ),
            Err(error) => tracing::error!(%error, "handing connections to the kernel could not be set up"),
        }
        // Also after a fault: what the kernel refuses once it refuses again, until something changes.
        self.last = Some(wanted);
    }
}

impl Drop for Handovers {
    fn drop(&mut self) {
        for work in self.at_work.drain(..) {
            work.abort();
        }
    }
}

fn keep(
    known: Option<Arc<Keeper>>,
    wanted: &Wanted,
    tell: mpsc::UnboundedSender<Ended>,
) -> Result<Arc<Keeper>, KernelFault> {
    let interfaces: Vec<&str> = wanted.interfaces.iter().map(String::as_str).collect();
    match known {
        Some(keeper) => keeper.follow(&interfaces, &wanted.entries).map(|()| keeper),
        None => {
            // Nobody listens any more when the daemon ends.
            let heir = Box::new(move |ended| drop(tell.send(ended)));
            let ports = wanted.ports.clone();
            Keeper::open(&wanted.bpffs, &interfaces, &wanted.entries, ports, TAKEN_OVER, heir)
        }
    }
}

/// The gate's interfaces, and those by which servers are reached.
fn wanted(snapshot: &Snapshot) -> Wanted {
    let config = &snapshot.config;
    let mut interfaces: BTreeSet<String> = config.kernel.interfaces.iter().map(ToString::to_string).collect();
    let services = snapshot.services.iter().filter(|service| service.offload == Offload::SpliceKernel);
    for server in services.flat_map(|service| &service.servers) {
        let towards = route::interface_towards(server.addr.0.ip()).ok().flatten();
        let name = towards.and_then(|index| if_indextoname(index).ok());
        interfaces.extend(name.map(|name| name.to_string_lossy().into_owned()));
    }
    let by_tcp = config.entrypoints.iter().filter(|entrypoint| entrypoint.carries != Carries::Udp);
    let entries: BTreeSet<u16> =
        by_tcp.flat_map(|entrypoint| &entrypoint.bind).map(std::net::SocketAddr::port).collect();
    let ports = config.kernel.nat_ports.by_name();
    Wanted {
        bpffs: config.kernel.bpffs.clone(),
        interfaces,
        entries: entries.into_iter().collect(),
        ports: ports.first..=ports.last,
        longest: Arc::new(announce::longest(snapshot)),
    }
}
