//! Connections that were handed to the kernel: the program that carries them, and the table that says how
//! (`proxy-ebpf/src/translate.rs`).
//!
//! Programs, links and maps are pinned as the gate's are: flows go on while no daemon is there, and the next one finds them.
//! Nothing here decides about a flow; that is the business of `handover`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use proxy_common::{
    names,
    translate::{Flow, FlowKey, PORT_WORDS, Seen, Tally, port_bit},
};

use super::{KernelFault, pins::Pins};

mod attach;
pub mod flows;
mod load;

use attach::Program;

/// The loaded program and its maps.
pub struct Translation {
    pins: Pins,
    program: Mutex<Program>,
    flows: Mutex<HashMap<MapData, FlowKey, Flow>>,
    seen: Mutex<HashMap<MapData, FlowKey, Seen>>,
    ports: Mutex<Array<MapData, u64>>,
    tally: PerCpuArray<MapData, Tally>,
}

impl Translation {
    /// Loads the program onto the pinned maps, and makes those that aren't there. Attaches nothing.
    pub fn open(bpffs: &Path) -> Result<Self, KernelFault> {
        super::privileges::check()?;
        let pins = Pins::below(bpffs);
        pins.ensure_translate()?;
        let mut ebpf = load::onto(&pins)?;
        let mut take = |name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| KernelFault::Other {
                doing: format!("find the map `{name}`"),
                why: "it is not in the eBPF object; build again with `cargo xtask build`".into(),
            })
        };
        let (flows, seen) = (take(names::TRANSLATE_FLOWS)?, take(names::TRANSLATE_SEEN)?);
        let (ports, tally) = (take(names::TRANSLATE_PORTS)?, take(names::TRANSLATE_TALLY)?);
        let opened = |error: MapError| failed("open the maps of handed-over connections", &error);
        Ok(Self {
            flows: Mutex::new(HashMap::try_from(flows).map_err(opened)?),
            seen: Mutex::new(HashMap::try_from(seen).map_err(opened)?),
            ports: Mutex::new(Array::try_from(ports).map_err(opened)?),
            tally: PerCpuArray::try_from(tally).map_err(opened)?,
            program: Mutex::new(Program::new(ebpf)?),
            pins,
        })
    }

    /// Has these interfaces run this process's program; it takes the place of a predecessor's. Others keep what they have
    /// while flows leave by them.
    pub fn attach(&self, interfaces: &[&str]) -> Result<(), KernelFault> {
        let in_use = self.flows()?.into_iter().map(|(_, flow)| flow.interface).collect();
        attach::reconcile(&self.pins, &mut lock(&self.program), interfaces, &in_use)
    }

    /// Exactly these local ports are looked at.
    pub fn watch(&self, ports: impl Iterator<Item = u16>) -> Result<(), KernelFault> {
        let mut words = vec![0_u64; PORT_WORDS];
        for port in ports {
            let (word, bit) = port_bit(port);
            words[word as usize] |= bit;
        }
        let mut table = lock(&self.ports);
        for (at, word) in words.into_iter().enumerate() {
            table
                .set(at as u32, word, 0)
                .map_err(|error| failed("write which ports are looked at", &error))?;
        }
        Ok(())
    }

    /// What the first packet of a direction said, if it came by.
    pub fn seen(&self, key: &FlowKey) -> Option<Seen> {
        lock(&self.seen).get(key, 0).ok()
    }

    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, KernelFault> {
        match lock(&self.flows).get(key, 0) {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read a flow", &error)),
        }
    }

    pub fn set(&self, key: &FlowKey, flow: &Flow) -> Result<(), KernelFault> {
        lock(&self.flows).insert(key, flow, 0).map_err(|error| failed("write a flow", &error))
    }

    /// That there is none is as good.
    pub fn remove(&self, key: &FlowKey) -> Result<(), KernelFault> {
        match lock(&self.flows).remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("remove a flow", &error)),
        }
    }

    /// All there are. One that ends meanwhile may be missing, and so may some that came after.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, KernelFault> {
        let flows = lock(&self.flows);
        let mut all = Vec::new();
        for entry in flows.iter() {
            match entry {
                Ok(entry) => all.push(entry),
                // It went while we looked.
                Err(error) if is_absent(&error) || matches!(error, MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read the flows", &error)),
            }
        }
        Ok(all)
    }

    /// What was done in all, by all CPUs.
    pub fn tally(&self) -> Result<Tally, KernelFault> {
        let shares = self.tally.get(&0, 0).map_err(|error| failed("read what was translated", &error))?;
        Ok(shares.iter().fold(Tally::default(), |sum, share| Tally {
            translated: sum.translated + share.translated,
            selective: sum.selective + share.selective,
            held: sum.held + share.held,
            fragments: sum.fragments + share.fragments,
            unreadable: sum.unreadable + share.unreadable,
            expired: sum.expired + share.expired,
            too_long: sum.too_long + share.too_long,
            errors: sum.errors + share.errors,
        }))
    }
}

/// A direction, by its two ends.
#[must_use]
pub fn key(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    let [a, b] = source.port().to_be_bytes();
    let [c, d] = destination.port().to_be_bytes();
    FlowKey { source: mapped(source.ip()), destination: mapped(destination.ip()), ports: [a, b, c, d] }
}

/// The two ends of a direction.
#[must_use]
pub fn ends(key: &FlowKey) -> (SocketAddr, SocketAddr) {
    let [a, b, c, d] = key.ports;
    let address = |bytes: [u8; 16], port| SocketAddr::new(IpAddr::from(bytes).to_canonical(), port);
    (address(key.source, u16::from_be_bytes([a, b])), address(key.destination, u16::from_be_bytes([c, d])))
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT))
}

fn failed(doing: &str, error: &MapError) -> KernelFault {
    KernelFault::aya(doing, error)
}

/// Somebody who panicked has left a map as good as any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_direction_come_back_as_they_went_in() {
        for (source, destination) in [("10.0.0.11:8443", "192.0.2.1:80"), ("[2001:db8::7]:1", "[::1]:65535")]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(ends(&key(source, destination)), (source, destination));
            assert_eq!(ends(&key(source, destination).reversed()), (destination, source));
        }
    }
}
