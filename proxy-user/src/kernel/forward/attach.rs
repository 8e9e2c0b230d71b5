//! `forward_tc` onto interfaces: where clients come in, and where servers answer.
//!
//! It goes behind the gate, which must have let a packet in first: at tcx as the last of all, at clsact at a lower priority. What
//! is attached is adopted and its program replaced in place; flows notice nothing.

use std::{collections::BTreeSet, io, os::fd::AsFd, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapType,
    programs::{ProgramFd, SchedClassifier},
};
use nix::net::if_::if_indextoname;
use proxy_common::{
    flow::{Flow, FlowKey, Origin},
    forward::{
        Cursor, Lookup, MAX_SERVERS, MAX_SERVICE_KEYS, MAX_SERVICES, MAX_TABLES, Server, ServerCounters,
        Service, ServiceCounters, ServiceKey, Settings,
    },
    label::Label,
    names,
};

use crate::kernel::{
    KernelFault,
    object::{self, Shape},
    pins::{self, Pins},
    sys::{
        clsact,
        link::{self, Link, LinkKind},
        table::Table,
    },
};

pub struct Program {
    descriptor: ProgramFd,
    id: u32,
    tcx: bool,
    /// For how many flows its table was made.
    pub max_flows: u32,
    /// Holds what it was loaded with.
    _ebpf: Ebpf,
}

impl Program {
    pub fn load(pins: &Pins, max_flows: u32) -> Result<Self, KernelFault> {
        let bytes = object::built_in().ok_or(KernelFault::NoObject)?;
        // One that is there keeps its size.
        let max_flows = object::entries(&pins.map(names::FORWARD_FLOWS))?.unwrap_or(max_flows);
        for (name, shape) in shapes(max_flows as usize) {
            object::check_shape(&pins.map(name), &shape)?;
        }
        let tables = Table::array::<Lookup>(c"forward_table");
        object::pin_array_of_maps(pins, c"FORWARD_TABLES", MAX_TABLES, tables)?;
        let mut loader = EbpfLoader::new();
        for name in names::FORWARD_MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
        loader.map_max_entries(names::FORWARD_FLOWS, max_flows);
        loader.map_max_entries(names::FORWARD_REPLIES, max_flows);
        object::make_small(&mut loader, &names::FORWARD_MAPS);
        let failed =
            |error: &(dyn std::error::Error + 'static)| KernelFault::aya("load what forwards", error);
        let mut ebpf = loader.load(bytes).map_err(|error| failed(&error))?;
        let program: &mut SchedClassifier = object::program(&mut ebpf, names::FORWARD_TC)?;
        program.load().map_err(|error| object::refused(names::FORWARD_TC, error))?;
        let id = program.info().map_err(|error| failed(&error))?.id();
        let descriptor = program.fd().map_err(|error| failed(&error))?.try_clone();
        let descriptor = descriptor.map_err(|error| failed(&error))?;
        let tcx = link::has_tcx(descriptor.as_fd());
        Ok(Self { descriptor, id, tcx, max_flows, _ebpf: ebpf })
    }

    /// Makes these interfaces run the program, and, unless `keep`, no others. Says on which it runs.
    pub fn attach(
        &mut self,
        pins: &Pins,
        interfaces: &[u32],
        keep: bool,
    ) -> Result<Vec<String>, KernelFault> {
        let mut names = BTreeSet::new();
        for index in interfaces {
            // One that has just gone will be looked at again.
            let Ok(name) = if_indextoname(*index) else { continue };
            let name = name.to_string_lossy().into_owned();
            if self.tcx { self.link(pins, &name, *index) } else { self.filter(&name, *index) }?;
            names.insert(name);
        }
        if keep {
            names.extend(self.refresh(pins)?);
        } else {
            self.detach_others(pins, &names)?;
        }
        self.pin(pins)?;
        Ok(names.into_iter().collect())
    }

    /// Puts the program into all that is attached.
    pub fn refresh(&mut self, pins: &Pins) -> Result<Vec<String>, KernelFault> {
        let mut names = Vec::new();
        for name in pins.forwarding()? {
            let path = pins.forward(&name);
            let link = Link::open(&path).map_err(|error| unread(&path, error))?;
            if link.info().map_err(|error| unread(&path, error))?.interface == 0 {
                pins::remove(&path)?;
                continue;
            }
            link.replace_program(self.descriptor.as_fd()).map_err(|error| refused(&name, error))?;
            names.push(name);
        }
        if !self.tcx {
            for (name, filter) in clsact::all(clsact::FORWARD).map_err(no_filters)? {
                filter.replace_program(self.descriptor.as_fd()).map_err(|error| refused(&name, error))?;
                names.push(name);
            }
        }
        Ok(names)
    }

    fn link(&self, pins: &Pins, name: &str, index: u32) -> Result<(), KernelFault> {
        let path = pins.forward(name);
        let program = self.descriptor.as_fd();
        if path.exists() {
            let link = Link::open(&path).map_err(|error| unread(&path, error))?;
            let info = link.info().map_err(|error| unread(&path, error))?;
            if info.kind == Some(LinkKind::TcxIngress) && info.interface == index {
                if info.program_id == self.id {
                    return Ok(());
                }
                return link.replace_program(program).map_err(|error| refused(name, error));
            }
            // Of an interface that is gone: another one has its name now.
            pins::remove(&path)?;
        }
        let link = Link::create_last(program, index).map_err(|error| refused(name, error))?;
        link.pin(&path).map_err(|error| KernelFault::system(format!("pin what forwards on `{name}`"), error))
    }

    fn filter(&self, name: &str, index: u32) -> Result<(), KernelFault> {
        let program = self.descriptor.as_fd();
        match clsact::one(clsact::FORWARD, index).map_err(no_filters)? {
            Some(filter) if filter.program_id == self.id => Ok(()),
            Some(filter) => filter.replace_program(program).map_err(|error| refused(name, error)),
            None => clsact::create(clsact::FORWARD, index, program)
                .map(drop)
                .map_err(|error| refused(name, error)),
        }
    }

    fn detach_others(&self, pins: &Pins, wanted: &BTreeSet<String>) -> Result<(), KernelFault> {
        for name in pins.forwarding()?.into_iter().filter(|name| !wanted.contains(name)) {
            pins::remove(&pins.forward(&name))?;
        }
        if !self.tcx {
            for (name, filter) in clsact::all(clsact::FORWARD).map_err(no_filters)? {
                if !wanted.contains(&name) {
                    filter.delete().map_err(|error| refused(&name, error))?;
                }
            }
        }
        Ok(())
    }

    /// So that whoever looks finds the program by its place. Attachments hold it anyway.
    fn pin(&mut self, pins: &Pins) -> Result<(), KernelFault> {
        let path = pins.program(names::FORWARD_TC);
        if crate::kernel::sys::program::Program::open(&path)
            .and_then(|there| there.id())
            .is_ok_and(|id| id == self.id)
        {
            return Ok(());
        }
        pins::remove(&path)?;
        let program: &mut SchedClassifier = object::program(&mut self._ebpf, names::FORWARD_TC)?;
        program.pin(path).map_err(|error| KernelFault::aya("pin what forwards", &error))
    }
}

fn unread(path: &Path, error: io::Error) -> KernelFault {
    match error.kind() {
        io::ErrorKind::InvalidData => KernelFault::ForeignPin { path: path.to_owned() },
        _ => KernelFault::system(format!("open the link pinned at {}", path.display()), error),
    }
}

fn refused(name: &str, error: io::Error) -> KernelFault {
    KernelFault::system(format!("attach what forwards to `{name}`"), error)
}

fn no_filters(error: io::Error) -> KernelFault {
    KernelFault::system("read the filters at clsact", error)
}

/// What this binary's program expects of pinned maps.
fn shapes(max_flows: usize) -> [(&'static str, Shape); names::FORWARD_MAPS.len()] {
    let array = |value, entries| Shape { kind: MapType::Array, key: size_of::<u32>(), value, entries };
    let per_cpu =
        |value, entries| Shape { kind: MapType::PerCpuArray, key: size_of::<u32>(), value, entries };
    let hash = |key, value, entries| Shape { kind: MapType::Hash, key, value, entries };
    [
        (names::FORWARD_SETTINGS, array(size_of::<Settings>(), 1)),
        (names::FORWARD_SERVICES, hash(size_of::<ServiceKey>(), size_of::<Service>(), MAX_SERVICE_KEYS)),
        (
            names::FORWARD_TABLES,
            Shape {
                kind: MapType::ArrayOfMaps,
                key: size_of::<u32>(),
                value: size_of::<u32>(),
                entries: MAX_TABLES,
            },
        ),
        (names::FORWARD_SERVERS, array(size_of::<Server>(), MAX_SERVERS)),
        (names::FORWARD_NAMES, array(size_of::<Label>(), MAX_SERVICES)),
        (names::FORWARD_FLOWS, hash(size_of::<FlowKey>(), size_of::<Flow>(), max_flows)),
        (names::FORWARD_REPLIES, hash(size_of::<FlowKey>(), size_of::<Origin>(), max_flows)),
        (names::FORWARD_CURSORS, array(size_of::<Cursor>(), MAX_SERVERS)),
        (names::FORWARD_SERVICE_COUNTERS, per_cpu(size_of::<ServiceCounters>(), MAX_SERVICES)),
        (names::FORWARD_SERVER_COUNTERS, per_cpu(size_of::<ServerCounters>(), MAX_SERVERS)),
    ]
}
