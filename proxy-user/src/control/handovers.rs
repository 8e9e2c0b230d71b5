//! Has the kernel carry connections that were handed to it (`offload = "splice-kernel"`): by the interfaces and ports that the
//! configuration names. Without a gate there is none of it, and the relay carries them.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use nix::net::if_::if_indextoname;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{apply::Fleet, kernel_side::State};
use crate::{
    config::model::{Carries, Offload},
    handover::{self, Keeper, Limits, ending::LINGER},
    kernel::{KernelFault, route},
    snapshot::Snapshot,
};

/// What is taken over from a daemon before was under limits that only that one knew.
const TAKEN_OVER: Limits =
    Limits { idle: std::time::Duration::from_secs(3600), lifetime: None, linger: LINGER };

#[derive(Default)]
pub struct Handovers {
    keeper: Option<Arc<Keeper>>,
    looking: Option<JoinHandle<()>>,
    /// What was last made of what.
    last: Option<Wanted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    bpffs: PathBuf,
    interfaces: BTreeSet<String>,
    entries: Vec<u16>,
    ports: std::ops::RangeInclusive<u16>,
}

impl Handovers {
    /// To be called after each reload. Costs nothing while nothing has changed.
    pub async fn keep_up(&mut self, fleet: &Fleet) {
        let snapshot = fleet.running().load_full();
        let config = &snapshot.config;
        let asked = config.services.iter().any(|service| service.offload == Offload::SpliceKernel);
        if self.keeper.is_none() && !(asked && matches!(fleet.kernel.state, State::On(_))) {
            return;
        }
        let wanted = wanted(&snapshot);
        if self.last.as_ref() == Some(&wanted) {
            return;
        }
        let (known, next) = (self.keeper.clone(), wanted.clone());
        let kept = spawn_blocking(move || keep(known, &next)).await;
        match kept {
            Ok(Ok(keeper)) => {
                if self.keeper.is_none() {
                    self.looking = Some(tokio::spawn(keeper.clone().look_after()));
                    handover::appoint(keeper.clone());
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

impl Handovers {
    /// A successor goes on with all of it.
    pub async fn leave(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        handover::dismiss();
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        keeper.leave().await;
    }
}

impl Drop for Handovers {
    fn drop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }
}

fn keep(known: Option<Arc<Keeper>>, wanted: &Wanted) -> Result<Arc<Keeper>, KernelFault> {
    let interfaces: Vec<&str> = wanted.interfaces.iter().map(String::as_str).collect();
    match known {
        Some(keeper) => keeper.follow(&interfaces, &wanted.entries).map(|()| keeper),
        None => Keeper::open(&wanted.bpffs, &interfaces, &wanted.entries, wanted.ports.clone(), TAKEN_OVER),
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
    }
}
