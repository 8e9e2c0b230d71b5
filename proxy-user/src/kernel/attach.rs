//! Programs onto interfaces: first attachment, adoption, replacement and detachment.
//!
//! An interface that is guarded stays guarded throughout. A link that is there gets the new program put in its
//! place; a link of the other hook goes only after the new one is there; nothing is ever detached first.

use std::{fs, os::fd::AsFd};

use aya::{
    Ebpf,
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use nix::libc;
use proxy_common::names;
use serde::Serialize;

use super::{
    AppliedInterface, KernelFault,
    interface::{Candidate, Choice, Hook},
    object,
    pins::{self, Pins},
    sys::link::{Link, LinkInfo},
};

/// What was done to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not guarded before.
    Attached,
    /// A predecessor's link: the program in it was replaced in place.
    Adopted,
    /// It had a link of another hook, or one of an interface of the same name that is gone.
    Moved,
    /// It runs this process's program already.
    Unchanged,
}

/// The loaded programs.
pub(super) struct Programs {
    ebpf: Ebpf,
    xdp: Loaded,
    tc: Loaded,
    pinned: bool,
}

struct Loaded {
    descriptor: ProgramFd,
    id: u32,
}

pub(super) struct Reconciled {
    pub interfaces: Vec<AppliedInterface>,
    pub detached: Vec<String>,
}

/// Makes exactly `candidates` run these programs. When one refuses, none has changed hands.
pub(super) fn reconcile(
    pins: &Pins,
    programs: &mut Programs,
    candidates: &[Candidate],
) -> Result<Reconciled, KernelFault> {
    // 1. All that is new, held only by this process: a fault drops it, and with it the attachment.
    let mut steps = Vec::new();
    for candidate in candidates {
        steps.push(prepare(pins, programs, candidate)?);
    }

    // 2. It becomes lasting, interface by interface.
    let mut interfaces = Vec::new();
    for (candidate, Step { choice, link, change }) in candidates.iter().zip(steps) {
        let name = &candidate.name;
        match change {
            Change::Unchanged => {}
            Change::Adopted => link
                .replace_program(programs.of(choice.hook).descriptor.as_fd())
                .map_err(|error| KernelFault::system(format!("replace the gate on `{name}`"), error))?,
            Change::Attached | Change::Moved => {
                let incoming = pins.incoming_link(name);
                link.pin(&incoming)
                    .and_then(|()| fs::rename(&incoming, pins.link(name)))
                    .map_err(|error| KernelFault::system(format!("pin the gate on `{name}`"), error))?;
            }
        }
        interfaces.push(AppliedInterface { name: name.clone(), hook: choice.hook, why: choice.why, change });
    }
    programs.pin(pins)?;

    // 3. Interfaces that are no longer named.
    let mut detached = Vec::new();
    for name in pins.linked()? {
        if !candidates.iter().any(|candidate| candidate.name == name) {
            pins::remove(&pins.link(&name))?;
            detached.push(name);
        }
    }
    Ok(Reconciled { interfaces, detached })
}

struct Step {
    choice: Choice,
    link: Link,
    change: Change,
}

/// Finds or makes the link for an interface, by its hooks in order.
fn prepare(pins: &Pins, programs: &Programs, candidate: &Candidate) -> Result<Step, KernelFault> {
    let pinned = pinned(pins, &candidate.name)?;
    let mut refusals: Vec<(Hook, KernelFault)> = Vec::new();
    for choice in &candidate.hooks {
        let program = programs.of(choice.hook);
        let mut choice = choice.clone();
        if let Some((refused, fault)) = refusals.last() {
            choice.why = format!("{} was refused ({fault})", refused.name());
        }
        let kind = choice.hook.link_kind();
        if let Some((_, info)) = &pinned
            && info.kind == Some(kind)
            && info.interface == candidate.index
        {
            // Opened anew: what is tried for the next interface needs this one's own.
            let Some((link, _)) = self::pinned(pins, &candidate.name)? else { continue };
            let change = if info.program_id == program.id { Change::Unchanged } else { Change::Adopted };
            return Ok(Step { choice, link, change });
        }
        match Link::create(program.descriptor.as_fd(), candidate.index, kind) {
            Ok(link) => {
                let change = if pinned.is_some() { Change::Moved } else { Change::Attached };
                return Ok(Step { choice, link, change });
            }
            Err(error) => refusals.push((choice.hook, refusal(candidate, choice.hook, error))),
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

fn pinned(pins: &Pins, name: &str) -> Result<Option<(Link, LinkInfo)>, KernelFault> {
    let path = pins.link(name);
    if !path.exists() {
        return Ok(None);
    }
    let link = Link::open(&path)
        .map_err(|error| KernelFault::system(format!("open the link pinned at {}", path.display()), error))?;
    let info = link
        .info()
        .map_err(|error| KernelFault::system(format!("read the link pinned at {}", path.display()), error))?;
    Ok(Some((link, info)))
}

fn refusal(candidate: &Candidate, hook: Hook, error: std::io::Error) -> KernelFault {
    let why = match (hook, error.raw_os_error()) {
        (_, Some(libc::EPERM)) => {
            return KernelFault::system(format!("attach to `{}`", candidate.name), error);
        }
        (Hook::Xdp, Some(libc::EBUSY)) => {
            "another XDP program is attached there; `bpftool net` shows it".into()
        }
        (Hook::Xdp, Some(libc::EOPNOTSUPP)) => {
            "its driver has no native XDP; `mode = \"tc\"` works on any interface".into()
        }
        (Hook::Xdp, Some(libc::ERANGE | libc::EINVAL)) => {
            "its driver can't run XDP as it is set up; an MTU above one page is the usual cause".into()
        }
        (Hook::Tc, Some(libc::EINVAL)) => "this kernel has no tcx; it came with Linux 6.6".into(),
        (Hook::Xdp | Hook::Tc, _) => error.to_string(),
    };
    KernelFault::AttachRefused { name: candidate.name.clone(), hook: hook.name(), why }
}

// === impl Programs ===

impl Programs {
    pub(super) fn new(mut ebpf: Ebpf) -> Result<Self, KernelFault> {
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
        Ok(Self { ebpf, xdp, tc, pinned: false })
    }

    const fn of(&self, hook: Hook) -> &Loaded {
        match hook {
            Hook::Xdp => &self.xdp,
            Hook::Tc => &self.tc,
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
        pins::remove(&pins.program(names::GATE_EXPLAIN))?;
        let explain: &mut Xdp = object::program(&mut self.ebpf, names::GATE_EXPLAIN)?;
        explain.pin(pins.program(names::GATE_EXPLAIN)).map_err(|error| failed(&error))?;
        self.pinned = true;
        Ok(())
    }
}
