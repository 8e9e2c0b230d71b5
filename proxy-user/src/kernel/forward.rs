//! Port passthrough in the kernel: `forward_tc` is attached, told of services and servers, and cleaned up after.
//!
//! Like the gate, all of it is pinned: maps, and the attachments below `forward/`. A daemon that dies leaves flows and choices as
//! they are, and the next one adopts them: flows go on, and new ones go where the last daemon sent them. [`Forwarder::apply`]
//! reconciles; [`Forwarder::sweep`] removes flows that are over, and gives slots back that none refers to any more.
//!
//! What can't be carried here ([`Refused`]) is no fault: it comes to the stack, where the daemon listens and relays.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use proxy_common::flow::State;
use serde::Serialize;

use super::{KernelFault, Protocol, addresses, pins::Pins};
use crate::{
    config::model::{KernelMode, NatPorts},
    passthrough::by_port::{ByPort, Way},
};

mod attach;
mod ended;
pub mod flows;
mod host;
mod maps;
mod nudge;
pub mod status;
mod sweep;
mod written;

pub use ended::Ended;
pub use flows::{FlowStatus, Wish};
pub use host::ports_taken;
pub use status::{ForwardStatus, ServerFigures, ServiceFigures};
pub use sweep::Swept;

use self::{attach::Program, maps::Maps, written::Written};

/// What the kernel is to carry.
#[derive(Debug, Clone)]
pub struct Desired {
    pub generation: u64,
    /// Where clients come in.
    pub interfaces: Vec<Arc<str>>,
    pub mode: KernelMode,
    pub nat_ports: NatPorts,
    /// Flows that there may be at a time.
    pub max_flows: u32,
    pub ports: Vec<ByPort>,
}

/// What became of each entrypoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Entrypoints whose traffic goes through the kernel, with where it goes to.
    pub carried: Vec<Carried>,
    pub refused: Vec<Refused>,
    /// Where the program is attached.
    pub interfaces: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Carried {
    pub entrypoint: String,
    pub protocol: &'static str,
    pub service: String,
}

/// An entrypoint whose traffic the kernel doesn't carry, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub entrypoint: String,
    pub protocol: &'static str,
    pub service: String,
    pub why: String,
    /// The configuration wanted it so: nothing is amiss.
    pub wanted: bool,
}

/// The loaded program and the pinned state that it works on.
pub struct Forwarder {
    pins: Pins,
    maps: Maps,
    program: Program,
    written: Written,
    /// Slots that flows referred to when they were last looked through.
    held: sweep::Held,
    swept: Swept,
    nudger: nudge::Nudger,
    /// The number of flows that was last asked for, and isn't what the table was made for.
    asked_in_vain: Option<u32>,
}

const _: () = {
    const fn may_go_to_another_thread<T: Send>() {}
    may_go_to_another_thread::<Forwarder>();
};

// === impl Forwarder ===

impl Forwarder {
    /// Loads the program onto the pinned maps; makes those that aren't there, for so many flows. Attaches nothing. The gate has
    /// made the folder of pins before.
    pub fn open(bpffs: &Path, max_flows: u32) -> Result<Self, KernelFault> {
        let pins = Pins::below(bpffs);
        pins.ensure_forwards()?;
        let program = Program::load(&pins, max_flows)?;
        let maps = Maps::open(&pins)?;
        let (written, held) = (Written::default(), sweep::Held::default());
        Ok(Self {
            pins,
            maps,
            program,
            written,
            held,
            swept: Swept::default(),
            nudger: nudge::Nudger::default(),
            asked_in_vain: None,
        })
    }

    /// Makes the kernel carry what is wanted and can be. On a fault nothing of it is worse than before.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, KernelFault> {
        self.tell_of_another_size(desired.max_flows);
        // 1. What this host can do for each.
        let host = host::Host::look(desired)?;
        let mut applied = Applied::default();
        let mut entries = Vec::new();
        for port in &desired.ports {
            for entry in host.entries(port) {
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(why) => applied.refused.push(refused(port, why)),
                }
            }
        }

        // 2. Where it is read: first, since a table that nobody reads harms nobody.
        let (mut interfaces, mut seen) = (Vec::new(), BTreeSet::new());
        if !entries.is_empty() {
            let reached =
                entries.iter().flat_map(|entry| entry.servers.iter().map(|server| server.interface));
            let all = host.front.iter().copied().chain(reached);
            interfaces.extend(all.filter(|index| seen.insert(*index)));
        }

        // 3. Servers, tables, services; what isn't wanted any more goes last.
        self.written.write(&mut self.maps, desired, &host, &entries, !self.held.is_empty())?;
        // Flows that are under way need the programs until they are over.
        let attached = if entries.is_empty() && !self.held.is_empty() {
            self.program.refresh(&self.pins)?
        } else {
            self.program.attach(&self.pins, &interfaces, !self.held.is_empty())?
        };
        if std::mem::take(&mut self.written.died) {
            self.reset_clients_of_the_dead()?;
        }
        applied.interfaces = attached;
        applied.carried = entries
            .iter()
            .map(|entry| Carried {
                entrypoint: entry.entrypoint.to_string(),
                protocol: entry.protocol.name(),
                service: entry.service.to_string(),
            })
            .collect();
        Ok(applied)
    }

    /// Removes flows that are over, and gives slots back that nothing refers to. Says what is left, and with `tell` what was
    /// removed.
    pub fn sweep(&mut self, tell: bool) -> Result<Swept, KernelFault> {
        let mut swept = sweep::sweep(&mut self.maps, &mut self.written, &mut self.held, tell)?;
        let ended = std::mem::take(&mut swept.ended);
        self.swept = swept.clone();
        self.reset_clients_of_the_dead()?;
        Ok(Swept { ended, ..swept })
    }

    /// A table can't be made larger, and to make another one would break the flows that are in it.
    fn tell_of_another_size(&mut self, wanted: u32) {
        let there = self.program.max_flows;
        let in_vain = (wanted != there).then_some(wanted);
        if in_vain.is_some() && in_vain != self.asked_in_vain {
            tracing::warn!(
                "the kernel's table of flows was made for {there}, and stays so: `kernel.max_flows = {wanted}` holds when it is \
                 made anew. `weir kernel unload` removes it, with all flows, once the daemon is stopped"
            );
        }
        self.asked_in_vain = in_vain;
    }

    /// Those that send something meet their reset anyway; the others are brought to do so.
    fn reset_clients_of_the_dead(&mut self) -> Result<(), KernelFault> {
        let dead = self.written.dead();
        if dead.is_empty() {
            return Ok(());
        }
        let nudger = &mut self.nudger;
        self.maps.flows(|key, flow| {
            let is_dead = dead.get(&flow.server_slot) == Some(&flow.incarnation);
            let ended = State::of_number(flow.state).is_none_or(State::has_ended);
            if is_dead && !ended && key.is_tcp() {
                let entrypoint = written::address(key.destination, key.destination_port);
                nudger.nudge(entrypoint, written::address(key.source, key.source_port));
            }
        })
    }
}

/// Whether an earlier daemon left anything that forwards.
pub fn stands(bpffs: &Path) -> bool {
    Pins::below(bpffs).forwarding().is_ok_and(|interfaces| !interfaces.is_empty())
}

fn refused(port: &ByPort, why: String) -> Refused {
    Refused {
        entrypoint: port.entrypoint.to_string(),
        protocol: port.protocol.name(),
        service: port.service.to_string(),
        why,
        wanted: matches!(port.way, Way::Relay(_)),
    }
}

/// An entrypoint that is carried, with all that the kernel has to know of it.
#[derive(Debug)]
struct Entry {
    entrypoint: Arc<str>,
    service: Arc<str>,
    protocol: Protocol,
    /// Of which family all addresses here are.
    v6: bool,
    /// Wildcards stand for the host's addresses here.
    addresses: Vec<SocketAddr>,
    keep_source: bool,
    sticky: bool,
    idle: Duration,
    lifetime: Option<Duration>,
    servers: Vec<Reached>,
}

/// A server with the way to it.
#[derive(Debug, Clone, Copy)]
struct Reached {
    addr: SocketAddr,
    source: IpAddr,
    interface: u32,
    /// Of the new flows.
    share: u32,
    dead: bool,
}
