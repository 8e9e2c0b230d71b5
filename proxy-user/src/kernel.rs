//! The kernel side of the daemon: the gate is loaded, attached, filled, watched and removed here, and nowhere
//! else is aya known.
//!
//! State lives in the kernel, not in this process. Maps, programs and links are pinned below
//! `<bpffs>/weir/v2`; a daemon that dies leaves the gate standing, and the next one adopts it. [`Kernel::apply`]
//! reconciles: it compares what is wanted with what is there, and does what is missing. A new generation of
//! lists and scope becomes visible with one map update, so that no packet is judged by parts of two.
//!
//! Absent here: when to apply (the supervisor's), what to do without a kernel side (the listener's check at
//! accept).

use std::{fs::File, io, net::SocketAddr, path::Path, sync::Arc};

use ipnet::IpNet;
use proxy_common::scope;
use serde::Serialize;

use crate::config::model::{KernelMode, SourceLimit, SynCookies, SynCookiesMode};

pub mod addresses;
mod allowed;
mod attach;
pub mod blocks;
mod cdn;
mod cgroup;
pub mod explain;
pub mod fault;
pub mod forward;
mod interface;
mod log;
mod lookup;
pub mod memory;
pub mod meter;
mod object;
mod pins;
mod plan;
mod privileges;
pub mod route;
pub mod sources;
pub mod status;
pub mod syn_cookies;
mod sys;
mod tables;
pub mod translate;
pub mod upstream;
pub mod watch;

pub use attach::Change;
pub use fault::KernelFault;
pub use interface::Hook;
pub use object::{built_in as object_built_in, telling_built_in as telling_object_built_in};
pub use pins::Unloaded;
pub use status::{KernelStatus, ShadowedSource};

use self::{
    attach::Programs,
    blocks::Blocks,
    interface::{Places, Tc},
    log::Ears,
    object::Loaded,
    pins::{Lock, OtherLayout, Pins},
    plan::Observed,
    tables::Tables,
};

/// What the kernel is to enforce.
#[derive(Debug, Clone)]
pub struct Desired {
    pub generation: u64,
    pub interfaces: Vec<Arc<str>>,
    /// `Off` attaches nothing, and detaches what is attached.
    pub mode: KernelMode,
    pub guarded: Vec<Guarded>,
    /// By programs that tell of each packet which they drop.
    pub log: bool,
}

/// An entrypoint. Without a list, everybody may come in.
#[derive(Debug, Clone)]
pub struct Guarded {
    pub entrypoint: Arc<str>,
    /// Wildcard addresses stand for every address that the host has when this is applied.
    pub bind: Vec<SocketAddr>,
    /// By what it can be reached there; at least one.
    pub protocols: Vec<Protocol>,
    pub lists: Vec<NamedList>,
    /// A rehearsal: every packet is judged, and those that would be dropped are counted and pass.
    pub shadow: bool,
    /// How much each source may send.
    pub limit: Option<SourceLimit>,
    pub syn_cookies: SynCookies,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone)]
pub struct NamedList {
    pub name: Arc<str>,
    /// Its members are a CDN's.
    pub cdn: bool,
    pub prefixes: Arc<[IpNet]>,
}

/// What [`Kernel::apply`] found and did.
#[derive(Debug, Clone, Serialize)]
pub struct Applied {
    pub generation: u64,
    pub interfaces: Vec<AppliedInterface>,
    /// Interfaces that were guarded before and aren't there now. They will be again when they are.
    pub absent: Vec<String>,
    /// Interfaces that were guarded before and aren't any more.
    pub detached: Vec<String>,
    /// Guarded (address, protocol, port) entries.
    pub guarded: usize,
    /// Why handshakes can't be proved anywhere, though that is asked for.
    pub no_syn_cookies: Option<String>,
    /// Why the gate doesn't log, though that is asked for.
    pub no_log: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct AppliedInterface {
    pub name: String,
    pub hook: Hook,
    /// Why this hook, in words.
    pub why: String,
    pub change: Change,
}

/// The loaded programs and the pinned state they work on.
pub struct Kernel {
    pins: Pins,
    tables: Tables,
    programs: Programs,
    admissions: plan::Known,
    blocks: Blocks,
    /// Where the interfaces were when they were last looked at.
    places: Places,
    /// Other versions' pins, until the gate is taken over from them.
    others: Vec<OtherLayout>,
    /// Entrypoints that may be flooded, by slot.
    watched: Vec<(u32, Arc<str>)>,
    /// While the programs log.
    ears: Option<Ears>,
    lock: Lock,
}

/// Programs, and who reads what they log.
type Telling = (Programs, Option<Ears>);

/// `apply` waits for the kernel, some tens of milliseconds: it belongs on a thread that may block.
const _: () = {
    const fn may_go_to_another_thread<T: Send>() {}
    may_go_to_another_thread::<Kernel>();
};

// === impl Protocol ===

impl Protocol {
    /// As it stands in packets and in the scope.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => scope::TCP,
            Self::Udp => scope::UDP,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn of_number(number: u16) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| u16::from(protocol.number()) == number)
    }
}

// === impl Kernel ===

impl Kernel {
    /// Loads the programs, onto the pinned maps if there are any. Attaches nothing.
    pub fn open(bpffs: &Path) -> Result<Self, KernelFault> {
        Self::take_over(bpffs, None)
    }

    /// The same from a daemon that stands still, with what it holds the pins by ([`Self::share_lock`]).
    pub fn take_over(bpffs: &Path, handed: Option<&File>) -> Result<Self, KernelFault> {
        let pins = Pins::below(bpffs);
        privileges::check()?;
        let lock = pins.ensure(handed)?;
        let others = pins.take_other_layouts(handed)?;
        let Loaded { programs } = object::load(&pins, false)?;
        let mut tables = Tables::open(&pins)?;
        tables.settle()?;
        let (admissions, places) = (plan::Known::default(), Places::default());
        let blocks = Blocks::default();
        Ok(Self {
            pins,
            tables,
            programs,
            admissions,
            blocks,
            places,
            others,
            watched: Vec::new(),
            ears: None,
            lock,
        })
    }

    /// What keeps others from the pins, for a successor.
    pub fn share_lock(&self) -> io::Result<File> {
        self.lock.share()
    }

    /// Makes the kernel enforce `desired`. On a fault, what was enforced before still is.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, KernelFault> {
        // 1. Everything that can be refused without having touched anything.
        let mut linked = self.pins.linked()?;
        for other in &self.others {
            linked.extend(other.pins.linked()?);
        }
        let known = |name: &str| self.places.know(name) || linked.iter().any(|linked| linked == name);
        let resolved = interface::resolve(&desired.interfaces, desired.mode, self.programs.tc_hook(), known)?;
        let guarded = addresses::expand(&desired.guarded)?;
        let asked = desired.guarded.iter().any(|one| one.syn_cookies.mode != SynCookiesMode::Off);
        let no_syn_cookies = if asked { syn_cookies::off(&self.programs) } else { None };
        let observed =
            Observed { no_syn_cookies: no_syn_cookies.is_some(), ..self.tables.observe(&self.admissions)? };
        let plan = plan::tables(desired.generation, &guarded, self.blocks, &observed)?;

        let (mut exchanged, no_log) = self.other_programs(desired)?;

        // 2. Lists into unused slots, then the new scope in one update.
        let previous = self.tables.scope()?.map(|(_, scope)| scope);
        self.tables.fill(&plan)?;
        let cdns = cdn::Members::add(&self.pins, &desired.guarded)?;
        self.tables.publish(&plan)?;

        // 3. Programs onto interfaces. Only now: a gate in place never stands empty.
        let programs = exchanged.as_mut().map_or(&mut self.programs, |(programs, _)| programs);
        let attached = match attach::reconcile(&self.pins, &self.others, programs, &resolved) {
            Ok(attached) => attached,
            Err(fault) => {
                self.tables.restore(previous.as_ref())?;
                return Err(fault);
            }
        };

        // 4. Nothing can fail any more that matters: what the old generation held is let go.
        if let Some((programs, ears)) = exchanged {
            (self.programs, self.ears) = (programs, ears);
        }
        self.tables.release(&plan.free);
        cdns.forget_others();
        self.leave_other_layouts();
        let floods = plan
            .entrypoints
            .iter()
            .filter(|named| plan.floods.get(&named.slot).is_some_and(|from| *from > 0));
        self.watched = floods.map(|named| (named.slot, named.name.as_str().into())).collect();
        self.admissions = plan.known;
        let places = Places::of(&resolved);
        places.tell(&self.places);
        self.places = places;
        Ok(Applied {
            generation: desired.generation,
            interfaces: attached.interfaces,
            absent: resolved.absent,
            detached: attached.detached,
            guarded: plan::guarded_entries(&plan.scope),
            no_syn_cookies,
            no_log,
        })
    }

    /// Loads the programs that log where those that don't are in use, and the other way round. Where the kernel doesn't
    /// take those that log, guarding goes on without, and why is said.
    fn other_programs(&self, desired: &Desired) -> Result<(Option<Telling>, Option<String>), KernelFault> {
        let log = desired.log && desired.mode != KernelMode::Off && !desired.interfaces.is_empty();
        if log == self.programs.telling() {
            return Ok((None, None));
        }
        if !log {
            return Ok((Some((object::load(&self.pins, false)?.programs, None)), None));
        }
        let load = || {
            let mut programs = object::load(&self.pins, true)?.programs;
            let ears = programs.hear(&self.pins)?;
            Ok::<_, KernelFault>((programs, Some(ears)))
        };
        match load() {
            Ok(telling) => Ok((Some(telling), None)),
            // Should handshakes be proved by the program of that kind now: it does so as the other one does.
            Err(fault) => Ok((None, Some(fault.to_string()))),
        }
    }

    /// Every attachment has this layout's programs now, or is none any more: what the versions before pinned can go.
    fn leave_other_layouts(&mut self) {
        for OtherLayout { name, pins, .. } in self.others.drain(..) {
            match pins.remove_layout() {
                Ok(_) => tracing::info!(
                    "the gate is taken over from another version, whose pins (layout {name}) are gone; packets are counted \
                     anew from here on"
                ),
                Err(fault) => tracing::warn!(
                    %fault,
                    "the gate is taken over from another version; some of its pins (layout {name}) are left, and do nothing"
                ),
            }
        }
    }

    /// Makes the gate ready to be asked for its reasons ([`explain`]). It judges without.
    pub fn make_explainable(&mut self) -> Result<(), KernelFault> {
        self.programs.pin_explain(&self.pins)
    }

    /// Whether an interface of the last [`Self::apply`] has vanished, come back, or is another one now.
    #[must_use]
    pub fn interfaces_changed(&self) -> bool {
        self.places.changed()
    }

    /// Guarded entrypoints with a flood of SYNs now.
    pub fn floods(&self) -> Result<Vec<Arc<str>>, KernelFault> {
        let mut flooded = Vec::new();
        for (slot, name) in &self.watched {
            let status = syn_cookies::status(&self.tables.flood(*slot)?, 0);
            if status.is_some_and(|status| status.active) {
                flooded.push(name.clone());
            }
        }
        Ok(flooded)
    }

    pub fn status(&self) -> Result<KernelStatus, KernelFault> {
        status::read(&self.pins, &self.tables, status::SOURCES_SHOWN)
    }
}

/// What the kernel enforces, from its pins alone: no daemon needs to run. `None` when nothing is pinned.
pub fn observe(bpffs: &Path) -> Result<Option<KernelStatus>, KernelFault> {
    let pins = Pins::below(bpffs);
    if !pins.exist()? {
        return Ok(None);
    }
    let tables = Tables::open(&pins)?;
    status::read(&pins, &tables, status::SOURCES_SHOWN).map(Some)
}

/// Whether a gate of this version or another one is attached: one that this daemon would have to take over.
pub fn stands(bpffs: &Path) -> Result<bool, KernelFault> {
    let pins = Pins::below(bpffs);
    if observe(bpffs)?.is_some_and(|status| !status.interfaces.is_empty()) {
        return Ok(true);
    }
    for name in pins.other_layouts()? {
        if !pins.of_layout(&name).guarded()?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What another version has pinned: its layout's name, and the interfaces that it guards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherVersion {
    pub layout: String,
    pub interfaces: Vec<String>,
}

/// Other versions' pins, which this one can't read.
pub fn other_versions(bpffs: &Path) -> Result<Vec<OtherVersion>, KernelFault> {
    let pins = Pins::below(bpffs);
    let of = |layout: String| Ok(OtherVersion { interfaces: pins.of_layout(&layout).guarded()?, layout });
    pins.other_layouts()?.into_iter().map(of).collect()
}

/// Whether this process may load the gate.
pub fn permitted() -> Result<(), KernelFault> {
    privileges::check()
}

/// Where on an interface the gate would be attached, and why there. The kernel may still refuse it.
pub fn preview(interface: &Arc<str>, mode: KernelMode) -> Result<(Hook, String), KernelFault> {
    let resolved =
        interface::resolve(std::slice::from_ref(interface), mode, Tc::of_this_kernel(), |_| false)?;
    let choice = resolved.candidates.into_iter().flat_map(|candidate| candidate.hooks).next();
    let choice = choice.ok_or_else(|| KernelFault::NoInterface { name: interface.to_string() })?;
    Ok((choice.hook, choice.why))
}

/// The largest packet that an interface carries, in bytes; `None` where it can't be asked.
pub fn mtu(interface: &str) -> Option<u32> {
    interface::mtu(interface)
}

/// Removes links, programs and maps: nothing is guarded by the kernel any more.
pub fn unload(bpffs: &Path) -> Result<Unloaded, KernelFault> {
    Pins::below(bpffs).remove()
}
