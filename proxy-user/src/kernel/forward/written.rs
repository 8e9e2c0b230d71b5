//! What stands in the kernel's tables: which slots are whose, and what has to be written for what is wanted now.
//!
//! A slot keeps its owner as long as a flow may refer to it: it is given back by a sweep that has found none. What an earlier
//! daemon wrote is read from the maps themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use proxy_common::forward::{
    Lookup, MAX_SERVICE_KEYS, NONE, PLACES, Server, ServerState, Service, ServiceKey, Settings, Timeouts,
    service,
    settings::{REPLIES_ANYWHERE, STRICT_PATH},
};

use super::{Desired, Entry, KernelFault, Reached, host::Host, maps::Maps};
use crate::{balance::maglev::Maglev, passthrough::by_port};

#[derive(Debug, Default)]
pub struct Written {
    /// Read from the maps, when it was first needed.
    known: bool,
    /// By slot.
    services: Vec<Option<String>>,
    servers: Vec<Server>,
    /// Who gets new flows, by the slot of the table. Those that an earlier daemon wrote are missing.
    tables: BTreeMap<u16, Vec<(u16, u32)>>,
    keys: BTreeMap<ServiceKey, Service>,
    /// Slots that the last configuration refers to.
    pub wanted_services: BTreeSet<u16>,
    pub wanted_servers: BTreeSet<u16>,
    /// A server has been found dead since this was last looked at.
    pub died: bool,
}

impl Written {
    /// What an earlier daemon wrote, if nobody has asked yet.
    pub fn learn(&mut self, maps: &Maps) -> Result<(), KernelFault> {
        if self.known {
            return Ok(());
        }
        self.services = maps.service_names()?;
        self.servers = maps.servers()?;
        self.keys = maps.services().into_iter().collect();
        self.known = true;
        Ok(())
    }

    /// Makes the maps say what is wanted.
    pub fn write(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        host: &Host,
        entries: &[Entry],
        held: bool,
    ) -> Result<(), KernelFault> {
        self.learn(maps)?;
        let keys: usize = entries.iter().map(|entry| entry.addresses.len()).sum();
        if keys > MAX_SERVICE_KEYS {
            let what = "the addresses and ports of passthrough".to_owned();
            return Err(KernelFault::TooMany { what, limit: MAX_SERVICE_KEYS });
        }
        settle(maps, desired, host, entries, held)?;

        // 1. Servers. A dead one first of all: its clients wait.
        let mut slots = BTreeMap::new();
        for server in entries.iter().flat_map(|entry| &entry.servers) {
            // Of several services: it is dead if all say so.
            let dead = entries
                .iter()
                .flat_map(|entry| &entry.servers)
                .filter(|other| other.addr == server.addr)
                .all(|other| other.dead);
            let slot = self.server(maps, server, dead, host)?;
            slots.insert(server.addr, slot);
        }
        self.wanted_servers = slots.values().copied().collect();

        // 2. Who gets new flows.
        let mut wanted = BTreeMap::new();
        let mut services = BTreeSet::new();
        for entry in entries {
            let slot = self.service(maps, &entry.service)?;
            services.insert(slot);
            let table = table_of(slot, entry.v6);
            self.table(maps, table, desired.generation, &entry.servers, &slots)?;
            let mut flags = 0;
            if entry.keep_source {
                flags |= service::KEEP_SOURCE;
            }
            if entry.sticky {
                flags |= service::STICKY;
            }
            let seconds =
                |duration: std::time::Duration| u32::try_from(duration.as_secs().max(1)).unwrap_or(u32::MAX);
            let service = Service {
                generation: desired.generation,
                slot,
                table,
                flags,
                reserved: 0,
                idle: seconds(entry.idle),
                lifetime: entry.lifetime.map_or(0, seconds),
            };
            for address in &entry.addresses {
                let key = ServiceKey::new(octets(address.ip()), entry.protocol.number(), address.port());
                wanted.insert(key, service);
            }
        }
        self.wanted_services = services;

        // 3. What leads there. What doesn't any more takes no new flows: they come to the stack. It goes with its last flow.
        for (key, service) in &wanted {
            if self.keys.get(key) != Some(service) {
                maps.set_service(*key, *service)?;
            }
        }
        for (key, service) in &self.keys {
            if !wanted.contains_key(key) {
                let retired = Service { flags: service.flags | service::RETIRED, ..*service };
                if retired != *service {
                    maps.set_service(*key, retired)?;
                }
                wanted.insert(*key, retired);
            }
        }
        self.keys = wanted;
        Ok(())
    }

    fn server(
        &mut self,
        maps: &mut Maps,
        reached: &Reached,
        dead: bool,
        host: &Host,
    ) -> Result<u16, KernelFault> {
        let address = octets(reached.addr.ip());
        let is_it = |server: &Server| {
            server.state != ServerState::Vacant as u16
                && server.address == address
                && server.port == reached.addr.port()
        };
        let known = self.servers.iter().position(is_it);
        let free = || {
            let vacant = |server: &Server| server.state == ServerState::Vacant as u16;
            self.servers.iter().skip(1).position(vacant).map(|index| index + 1)
        };
        let Some(slot) = known.or_else(free) else {
            return Err(KernelFault::TooMany {
                what: "servers of passthrough".into(),
                limit: self.servers.len(),
            });
        };
        let before = self.servers[slot];
        let forwards = host.forwards[usize::from(reached.addr.is_ipv6())];
        let next = Server {
            address,
            source: octets(reached.source),
            port: reached.addr.port(),
            state: if dead { ServerState::Dead } else { ServerState::Serving } as u16,
            incarnation: if known.is_some() {
                before.incarnation
            } else {
                before.incarnation.wrapping_add(1)
            },
            interface: if forwards { 0 } else { reached.interface },
            reserved: 0,
        };
        let index = slot as u16;
        if known.is_none() {
            maps.reset_server(index)?;
        }
        if before != next {
            self.died |= dead && before.state == ServerState::Serving as u16;
            maps.set_server(index, next)?;
            self.servers[slot] = next;
        }
        Ok(index)
    }

    fn service(&mut self, maps: &mut Maps, name: &str) -> Result<u16, KernelFault> {
        if let Some(slot) = self.services.iter().position(|known| known.as_deref() == Some(name)) {
            return Ok(slot as u16);
        }
        let free = self.services.iter().skip(1).position(Option::is_none).map(|index| index + 1);
        let Some(slot) = free else {
            return Err(KernelFault::TooMany {
                what: "services of passthrough".into(),
                limit: self.services.len(),
            });
        };
        maps.reset_service(slot as u16)?;
        maps.name(slot as u16, name)?;
        self.services[slot] = Some(name.to_owned());
        Ok(slot as u16)
    }

    fn table(
        &mut self,
        maps: &mut Maps,
        slot: u16,
        generation: u64,
        servers: &[Reached],
        slots: &BTreeMap<SocketAddr, u16>,
    ) -> Result<(), KernelFault> {
        let shares: Vec<(u16, u32)> =
            servers.iter().map(|server| (slots[&server.addr], server.share)).collect();
        if self.tables.get(&slot) == Some(&shares) {
            return Ok(());
        }
        let members: Vec<_> =
            servers.iter().map(|server| by_port::member(server.addr, server.share)).collect();
        let places = Maglev::of_size(&members, PLACES as u64);
        let mut lookup = Box::new(Lookup { generation, ..Lookup::EMPTY });
        for (place, index) in lookup.servers.iter_mut().zip(places.slots()) {
            *place = shares.get(usize::from(*index)).map_or(NONE, |(slot, _)| *slot);
        }
        maps.set_table(slot, &lookup)?;
        self.tables.insert(slot, shares);
        Ok(())
    }

    /// By slot.
    pub fn names(&self) -> &[Option<String>] {
        &self.services
    }

    /// By slot.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The dead servers' slots, with their incarnations.
    pub fn dead(&self) -> BTreeMap<u16, u32> {
        let servers = (0u16..).zip(&self.servers);
        let dead = servers.filter(|(_, server)| server.state == ServerState::Dead as u16);
        dead.map(|(slot, server)| (slot, server.incarnation)).collect()
    }

    /// Gives slots back that neither the configuration nor any flow refers to.
    pub fn give_back(
        &mut self,
        maps: &mut Maps,
        held_services: &BTreeSet<u16>,
        held_servers: &BTreeSet<u16>,
    ) -> Result<(), KernelFault> {
        self.learn(maps)?;
        let over =
            |service: &Service| service.has(service::RETIRED) && !held_services.contains(&service.slot);
        let over: Vec<_> =
            self.keys.iter().filter(|(_, service)| over(service)).map(|(key, _)| *key).collect();
        for key in over {
            maps.remove_service(&key)?;
            self.keys.remove(&key);
        }
        for slot in 1..self.services.len() {
            let index = slot as u16;
            let needed = self.wanted_services.contains(&index) || held_services.contains(&index);
            if self.services[slot].is_some() && !needed {
                for table in [table_of(index, false), table_of(index, true)] {
                    maps.clear_table(table)?;
                    self.tables.remove(&table);
                }
                maps.name(index, "")?;
                self.services[slot] = None;
            }
        }
        for slot in 1..self.servers.len() {
            let index = slot as u16;
            let vacant = self.servers[slot].state == ServerState::Vacant as u16;
            if !vacant && !self.wanted_servers.contains(&index) && !held_servers.contains(&index) {
                // The incarnation stays, so that whoever comes next has another one.
                self.servers[slot].state = ServerState::Vacant as u16;
                maps.set_server(index, self.servers[slot])?;
            }
        }
        Ok(())
    }
}

/// What holds for all services. `held`: flows are there, which may have begun under others.
fn settle(
    maps: &mut Maps,
    desired: &Desired,
    host: &Host,
    entries: &[Entry],
    held: bool,
) -> Result<(), KernelFault> {
    let before = maps.settings()?;
    let mut next =
        Settings { generation: before.generation, timeouts: Timeouts::DEFAULT, ..Settings::default() };
    if host.no_ports.is_none() {
        next.first_port = desired.nat_ports.first;
        next.ports = u16::try_from(desired.nat_ports.count()).unwrap_or(u16::MAX);
    }
    let others = before.has(REPLIES_ANYWHERE)
        || (before.ports != 0 && (before.first_port, before.ports) != (next.first_port, next.ports));
    if entries.iter().any(|entry| entry.keep_source) || (held && others) {
        next.flags |= REPLIES_ANYWHERE;
    }
    if host.strict {
        next.flags |= STRICT_PATH;
    }
    if before == next {
        return Ok(());
    }
    next.generation = desired.generation;
    maps.settings.set(0, next, 0).map_err(|error| KernelFault::aya("write FORWARD_SETTINGS", &error))
}

/// Each service has two tables.
const fn table_of(service: u16, v6: bool) -> u16 {
    2 * service + v6 as u16
}

pub fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

pub fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port)
}
