//! The program onto interfaces. What carries flows is replaced in place and never taken away first.

use std::{collections::BTreeSet, fs, io, os::fd::AsFd, path::Path};

use aya::{
    Ebpf,
    programs::{ProgramFd, SchedClassifier},
};
use nix::net::if_::if_nametoindex;
use proxy_common::names;

use crate::kernel::{
    KernelFault,
    interface::Tc,
    object,
    pins::{self, Pins},
    sys::{
        clsact,
        link::{self, Link, LinkKind},
    },
};

pub(super) struct Program {
    /// What it was loaded from.
    ebpf: Ebpf,
    descriptor: ProgramFd,
    hook: Tc,
    is_pinned: bool,
}

impl Program {
    pub(super) fn new(mut ebpf: Ebpf) -> Result<Self, KernelFault> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| KernelFault::aya("look at the program", error);
        let program: &mut SchedClassifier = object::program(&mut ebpf, names::TRANSLATE_TC)?;
        let descriptor = program.fd().map_err(|error| failed(&error))?.try_clone();
        let descriptor = descriptor.map_err(|error| failed(&error))?;
        let hook = if link::has_tcx(descriptor.as_fd()) { Tc::Tcx } else { Tc::Clsact };
        Ok(Self { ebpf, descriptor, hook, is_pinned: false })
    }

    /// So that whoever looks finds it by its place. The links hold it anyway.
    fn pin(&mut self, pins: &Pins) -> Result<(), KernelFault> {
        if self.is_pinned {
            return Ok(());
        }
        let path = pins.program(names::TRANSLATE_TC);
        pins::remove(&path)?;
        let program: &mut SchedClassifier = object::program(&mut self.ebpf, names::TRANSLATE_TC)?;
        program.pin(path).map_err(|error| KernelFault::aya("pin the program", &error))?;
        self.is_pinned = true;
        Ok(())
    }
}

/// Attaches to these interfaces. From others it goes, unless flows leave by them.
pub(super) fn reconcile(
    pins: &Pins,
    program: &mut Program,
    interfaces: &[&str],
    in_use: &BTreeSet<u32>,
) -> Result<(), KernelFault> {
    for name in interfaces {
        let index =
            if_nametoindex(*name).map_err(|_| KernelFault::NoInterface { name: (*name).to_owned() })?;
        let attached = match program.hook {
            Tc::Tcx => by_link(&pins.translate_links().join(name.replace('.', ":")), program, index),
            Tc::Clsact => by_filter(program, index),
        };
        attached.map_err(|error| {
            KernelFault::system(format!("carry handed-over connections on `{name}`"), error)
        })?;
    }
    program.pin(pins)?;
    let is_needed = |name: &str| {
        interfaces.contains(&name) || if_nametoindex(name).is_ok_and(|index| in_use.contains(&index))
    };
    for name in pins.translate_linked()?.into_iter().filter(|name| !is_needed(name)) {
        pins::remove(&pins.translate_links().join(name.replace('.', ":")))?;
    }
    let failed = |error| KernelFault::system("look after the filters at clsact", error);
    if program.hook == Tc::Clsact {
        for (name, filter) in clsact::all(clsact::TRANSLATE).map_err(failed)? {
            if !is_needed(&name) {
                filter.delete().map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn by_link(path: &Path, program: &Program, interface: u32) -> io::Result<()> {
    if path.exists() {
        let link = Link::open(path)?;
        let info = link.info()?;
        if info.kind != Some(LinkKind::TcxIngress) {
            return Err(io::Error::other(format!("what is pinned at {} is not ours", path.display())));
        }
        // Else the interface is another one of the same name.
        if info.interface == interface {
            return link.replace_program(program.descriptor.as_fd());
        }
        fs::remove_file(path)?;
    }
    Link::create_last(program.descriptor.as_fd(), interface)?.pin(path)
}

fn by_filter(program: &Program, interface: u32) -> io::Result<()> {
    match clsact::one(clsact::TRANSLATE, interface)? {
        Some(filter) => filter.replace_program(program.descriptor.as_fd()),
        None => clsact::create(clsact::TRANSLATE, interface, program.descriptor.as_fd()).map(drop),
    }
}
