//! Programs onto interfaces: first attachment, adoption, replacement and detachment.
//!
//! An interface that is guarded stays guarded throughout. An attachment that is there gets the new program put in its
//! place; one at another hook goes only after the new one is there; nothing is ever detached first. Other people's
//! programs are never touched.
//!
//! XDP and tcx attach by links, which are pinned. Where the kernel has no tcx, clsact takes its place: it knows no
//! links, and a filter there stands by itself until it is deleted. Which of both it is, is decided by what the kernel
//! has and never by what a call falls back to.

use std::{fs, os::fd::AsFd};

use aya::{
    Ebpf,
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use proxy_common::names;
use serde::Serialize;

use super::{
    AppliedInterface, KernelFault,
    interface::{Candidate, Choice, Hook, Resolved, Tc},
    log::Ears,
    object,
    pins::{self, OtherLayout, Pins},
    sys::{
        clsact::{self, Filter},
        link::{self, Link, LinkInfo},
    },
};

mod refusal;

pub(super) use refusal::program_name;

/// What was done to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not guarded before.
    Attached,
    /// A predecessor's attachment: the program in it was replaced in place.
    Adopted,
    /// It was guarded at another hook, or an interface of the same name that is gone was.
    Moved,
    /// It runs this process's program already.
    Unchanged,
}

/// The loaded programs.
pub(super) struct Programs {
    ebpf: Ebpf,
    xdp: Loaded,
    /// Why this kernel can't have handshakes proved.
    no_proof: Option<String>,
    tc: Loaded,
    /// What this kernel has for the second one.
    tc_hook: Tc,
    pinned: bool,
    /// They log.
    telling: bool,
}

struct Loaded {
    descriptor: ProgramFd,
    id: u32,
}

pub(super) struct Reconciled {
    pub interfaces: Vec<AppliedInterface>,
    pub detached: Vec<String>,
}

/// Makes exactly these interfaces run these programs. When one refuses, none has changed hands.
pub(super) fn reconcile(
    pins: &Pins,
    others: &[OtherLayout],
    programs: &mut Programs,
    Resolved { candidates, absent }: &Resolved,
) -> Result<Reconciled, KernelFault> {
    // 1. All that is new, held only by this process: a fault drops it, and with it the attachment.
    let mut steps = Vec::new();
    for candidate in candidates {
        steps.push(prepare(pins, others, programs, candidate)?);
    }

    // 2. It becomes lasting, interface by interface.
    let mut interfaces = Vec::new();
    for (candidate, Step { choice, attachment, change }) in candidates.iter().zip(steps) {
        settle(pins, programs, candidate, choice.hook, attachment, change)?;
        let name = candidate.name.clone();
        interfaces.push(AppliedInterface { name, hook: choice.hook, why: choice.why, change });
    }
    programs.pin(pins)?;

    // 3. Interfaces that are no longer named. One that is only absent may be back under its name at any time.
    let mut detached = Vec::new();
    let is_named =
        |name: &String| candidates.iter().any(|candidate| candidate.name == *name) || absent.contains(name);
    for name in pins.linked()?.into_iter().filter(|name| !is_named(name)) {
        pins::remove(&pins.link(&name))?;
        detached.push(name);
    }
    for other in others {
        let linked = other.pins.linked()?.into_iter();
        detached.extend(linked.filter(|name| !is_named(name)));
    }
    if programs.tc_hook == Tc::Clsact && absent.is_empty() {
        for (name, filter) in clsact::all(clsact::GATE).map_err(unread)? {
            if !candidates.iter().any(|candidate| candidate.index == filter.interface) {
                filter.delete().map_err(|error| undeleted(&name, error))?;
                detached.push(name);
            }
        }
    }
    Ok(Reconciled { interfaces, detached })
}

struct Step {
    choice: Choice,
    attachment: Attachment,
    change: Change,
}

enum Attachment {
    Link(Link),
    Filter(Filter),
    /// Not to stay if what follows fails.
    NewFilter(NewFilter),
}

struct NewFilter(Option<Filter>);

/// Finds or makes the attachment for an interface, by its hooks in order.
fn prepare(
    pins: &Pins,
    others: &[OtherLayout],
    programs: &Programs,
    candidate: &Candidate,
) -> Result<Step, KernelFault> {
    let find = || -> Result<_, KernelFault> {
        let mut places = std::iter::once(pins).chain(others.iter().map(|other| &other.pins));
        places.find_map(|pins| pinned(pins, &candidate.name).transpose()).transpose()
    };
    let pinned = find()?;
    let filter = clsact::one(clsact::GATE, candidate.index).map_err(unread)?;
    let was_guarded = pinned.is_some() || filter.is_some();
    let fresh = if was_guarded { Change::Moved } else { Change::Attached };
    let mut refusals: Vec<(Hook, KernelFault)> = Vec::new();
    for choice in &candidate.hooks {
        let program = programs.of(choice.hook);
        let mut choice = choice.clone();
        if let Some((refused, fault)) = refusals.last() {
            choice.why = format!("{} was refused ({fault})", refused.name());
        }
        let adopted = |id| if id == program.id { Change::Unchanged } else { Change::Adopted };
        let descriptor = program.descriptor.as_fd();
        let made = match (choice.hook.link_kind(), filter) {
            (Some(kind), _) => {
                if let Some((_, info)) = &pinned
                    && info.kind == Some(kind)
                    && info.interface == candidate.index
                {
                    // Opened anew: what is tried for the next interface needs this one's own.
                    let Some((link, _)) = find()? else { continue };
                    let change = adopted(info.program_id);
                    return Ok(Step { choice, attachment: Attachment::Link(link), change });
                }
                Link::create(descriptor, candidate.index, kind).map(Attachment::Link)
            }
            (None, Some(filter)) => {
                let change = adopted(filter.program_id);
                return Ok(Step { choice, attachment: Attachment::Filter(filter), change });
            }
            (None, None) => clsact::create(clsact::GATE, candidate.index, descriptor)
                .map(|filter| Attachment::NewFilter(NewFilter(Some(filter)))),
        };
        match made {
            Ok(attachment) => return Ok(Step { choice, attachment, change: fresh }),
            Err(error) => refusals.push((choice.hook, refusal::of(candidate, choice.hook, error))),
        }
    }
    // What the configuration or the interface asked for first says most about why.
    refusals.into_iter().next().map_or_else(
        || {
            Err(KernelFault::Other {
                doing: format!("attach to `{}`", candidate.name),
                why: "no hook".into(),
            })
        },
        |(_, fault)| Err(fault),
    )
}

/// Makes an attachment outlive this process, then takes away what guarded the interface elsewhere.
fn settle(
    pins: &Pins,
    programs: &Programs,
    candidate: &Candidate,
    hook: Hook,
    attachment: Attachment,
    change: Change,
) -> Result<(), KernelFault> {
    let name = &candidate.name;
    let replaced = |error| KernelFault::system(format!("replace the gate on `{name}`"), error);
    let program = programs.of(hook).descriptor.as_fd();
    match (attachment, change) {
        (_, Change::Unchanged) => Ok(()),
        (Attachment::Link(link), Change::Adopted) => {
            // Another layout's: it has a name here too before it judges by these maps, so that whoever comes next finds it.
            if !pins.link(name).exists() {
                link.pin(&pins.link(name))
                    .map_err(|error| KernelFault::system(format!("pin the gate on `{name}`"), error))?;
            }
            link.replace_program(program).map_err(replaced)
        }
        (Attachment::Filter(filter), _) => filter.replace_program(program).map_err(replaced),
        (Attachment::Link(link), Change::Attached | Change::Moved) => {
            let incoming = pins.incoming_link(name);
            link.pin(&incoming)
                .and_then(|()| fs::rename(&incoming, pins.link(name)))
                .map_err(|error| KernelFault::system(format!("pin the gate on `{name}`"), error))?;
            match clsact::one(clsact::GATE, candidate.index).map_err(unread)? {
                Some(filter) => filter.delete().map_err(|error| undeleted(name, error)),
                None => Ok(()),
            }
        }
        (Attachment::NewFilter(mut filter), _) => {
            filter.0 = None;
            pins::remove(&pins.link(name))
        }
    }
}

fn pinned(pins: &Pins, name: &str) -> Result<Option<(Link, LinkInfo)>, KernelFault> {
    let path = pins.link(name);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::InvalidData => KernelFault::ForeignPin { path: path.clone() },
        _ => KernelFault::system(format!("open the link pinned at {}", path.display()), error),
    };
    let link = Link::open(&path).map_err(failed)?;
    let info = link.info().map_err(failed)?;
    if info.kind.is_none() {
        return Err(KernelFault::ForeignPin { path });
    }
    Ok(Some((link, info)))
}

fn unread(error: std::io::Error) -> KernelFault {
    KernelFault::system("read the filters at clsact", error)
}

fn undeleted(name: &str, error: std::io::Error) -> KernelFault {
    KernelFault::system(format!("delete the filter at clsact of `{name}`"), error)
}

// === impl NewFilter ===

impl Drop for NewFilter {
    fn drop(&mut self) {
        if let Some(filter) = self.0
            && let Err(error) = filter.delete()
        {
            tracing::warn!(%error, interface = filter.interface, "a filter at clsact stays that should not");
        }
    }
}

// === impl Programs ===

impl Programs {
    pub(super) fn new(mut ebpf: Ebpf, no_proof: Option<String>, telling: bool) -> Result<Self, KernelFault> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| KernelFault::aya("look at the programs", error);
        let xdp: &mut Xdp = object::program(&mut ebpf, names::GATE_XDP)?;
        let id = xdp.info().map_err(|error| failed(&error))?.id();
        let descriptor = xdp.fd().map_err(|error| failed(&error))?.try_clone();
        let xdp = Loaded { descriptor: descriptor.map_err(|error| failed(&error))?, id };
        let tc: &mut SchedClassifier = object::program(&mut ebpf, names::GATE_TC)?;
        let id = tc.info().map_err(|error| failed(&error))?.id();
        let descriptor = tc.fd().map_err(|error| failed(&error))?.try_clone();
        let tc = Loaded { descriptor: descriptor.map_err(|error| failed(&error))?, id };
        let tc_hook = if link::has_tcx(tc.descriptor.as_fd()) { Tc::Tcx } else { Tc::Clsact };
        Ok(Self { ebpf, xdp, no_proof, tc, tc_hook, pinned: false, telling })
    }

    pub(super) const fn telling(&self) -> bool {
        self.telling
    }

    /// Begins to read what they log. Once, and when none of them is still to be loaded.
    pub(super) fn hear(&mut self, pins: &Pins) -> Result<Ears, KernelFault> {
        Ears::open(&mut self.ebpf, pins)
    }

    pub(super) const fn tc_hook(&self) -> Tc {
        self.tc_hook
    }

    /// Why handshakes can't be proved by this kernel. `None`: they can.
    pub(super) fn no_proof(&self) -> Option<&str> {
        self.no_proof.as_deref()
    }

    const fn of(&self, hook: Hook) -> &Loaded {
        match hook {
            Hook::Xdp => &self.xdp,
            Hook::Tcx | Hook::Clsact => &self.tc,
        }
    }

    /// So that whoever looks finds the programs by their place. The links hold them anyway.
    fn pin(&mut self, pins: &Pins) -> Result<(), KernelFault> {
        if self.pinned {
            return Ok(());
        }
        let failed = |error: &(dyn std::error::Error + 'static)| KernelFault::aya("pin the programs", error);
        pins::remove(&pins.program(names::GATE_XDP))?;
        let xdp: &mut Xdp = object::program(&mut self.ebpf, names::GATE_XDP)?;
        xdp.pin(pins.program(names::GATE_XDP)).map_err(|error| failed(&error))?;
        pins::remove(&pins.program(names::GATE_TC))?;
        let tc: &mut SchedClassifier = object::program(&mut self.ebpf, names::GATE_TC)?;
        tc.pin(pins.program(names::GATE_TC)).map_err(|error| failed(&error))?;
        // A predecessor's: it explains another program than the one that judges from now on.
        pins::remove(&pins.program(names::GATE_EXPLAIN))?;
        self.pinned = true;
        Ok(())
    }

    /// `gate_explain` as well, for whoever asks. Later than the others: the verifier takes as long for it as for the
    /// gate itself, and no packet waits for it.
    pub(super) fn pin_explain(&mut self, pins: &Pins) -> Result<(), KernelFault> {
        let path = pins.program(names::GATE_EXPLAIN);
        if !self.pinned || path.exists() {
            return Ok(());
        }
        let explain = object::load_explain(&mut self.ebpf)?;
        explain.pin(path).map_err(|error| KernelFault::aya("pin the program that explains", &error))?;
        Ok(())
    }
}
