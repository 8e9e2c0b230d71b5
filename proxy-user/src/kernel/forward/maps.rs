//! The pinned maps of `forward_tc`.

use std::os::fd::AsFd;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use proxy_common::{
    flow::{Flow, FlowKey, Origin},
    forward::{
        Cursor, Lookup, MAX_SERVERS, MAX_SERVICES, Server, ServerCounters, Service, ServiceCounters,
        ServiceKey, Settings,
    },
    label::Label,
    names,
};

use crate::kernel::{
    KernelFault,
    pins::Pins,
    sys::{
        entries,
        table::{self, Table},
    },
    tables::{data, failed, map, typed},
};

pub(in crate::kernel) struct Maps {
    pub settings: Array<MapData, Settings>,
    pub services: HashMap<MapData, ServiceKey, Service>,
    /// An array of maps.
    tables: MapData,
    servers: Array<MapData, Server>,
    names: Array<MapData, Label>,
    flows: MapData,
    replies: MapData,
    cursors: Array<MapData, Cursor>,
    service_counters: PerCpuArray<MapData, ServiceCounters>,
    server_counters: PerCpuArray<MapData, ServerCounters>,
}

impl Maps {
    pub fn open(pins: &Pins) -> Result<Self, KernelFault> {
        let of = |name: &'static str| map(pins, name);
        Ok(Self {
            settings: typed(of(names::FORWARD_SETTINGS)?)?,
            services: typed(of(names::FORWARD_SERVICES)?)?,
            tables: data(pins, names::FORWARD_TABLES)?,
            servers: typed(of(names::FORWARD_SERVERS)?)?,
            names: typed(of(names::FORWARD_NAMES)?)?,
            flows: data(pins, names::FORWARD_FLOWS)?,
            replies: data(pins, names::FORWARD_REPLIES)?,
            cursors: typed(of(names::FORWARD_CURSORS)?)?,
            service_counters: typed(of(names::FORWARD_SERVICE_COUNTERS)?)?,
            server_counters: typed(of(names::FORWARD_SERVER_COUNTERS)?)?,
        })
    }

    pub fn settings(&self) -> Result<Settings, KernelFault> {
        self.settings.get(&0, 0).map_err(|error| failed("read", names::FORWARD_SETTINGS, &error))
    }

    /// The services' names by slot. The first slot is nobody's.
    pub fn service_names(&self) -> Result<Vec<Option<String>>, KernelFault> {
        let name = |slot| {
            let label =
                self.names.get(&slot, 0).map_err(|error| failed("read", names::FORWARD_NAMES, &error))?;
            Ok((!label.is_empty()).then(|| label.as_str().to_owned()))
        };
        (0..MAX_SERVICES as u32).map(name).collect()
    }

    pub fn name(&mut self, slot: u16, name: &str) -> Result<(), KernelFault> {
        let label = Label::new(name)
            .ok_or_else(|| KernelFault::NameTooLong { name: name.to_owned(), limit: Label::SIZE - 1 })?;
        self.names.set(slot.into(), label, 0).map_err(|error| failed("write", names::FORWARD_NAMES, &error))
    }

    pub fn servers(&self) -> Result<Vec<Server>, KernelFault> {
        let one =
            |slot| self.servers.get(&slot, 0).map_err(|error| failed("read", names::FORWARD_SERVERS, &error));
        (0..MAX_SERVERS as u32).map(one).collect()
    }

    pub fn set_server(&mut self, slot: u16, server: Server) -> Result<(), KernelFault> {
        self.servers
            .set(slot.into(), server, 0)
            .map_err(|error| failed("write", names::FORWARD_SERVERS, &error))
    }

    /// One update, and every packet from then on is judged by it.
    pub fn set_table(&mut self, slot: u16, lookup: &Lookup) -> Result<(), KernelFault> {
        Table::holding(c"forward_table", lookup)
            .and_then(|table| table::set_slot(self.tables.fd().as_fd(), slot.into(), &table))
            .map_err(|error| KernelFault::system("write who gets new flows", error))
    }

    pub fn clear_table(&mut self, slot: u16) -> Result<(), KernelFault> {
        table::clear_slot(self.tables.fd().as_fd(), slot.into())
            .map_err(|error| KernelFault::system("forget who gets new flows", error))
    }

    pub fn services(&self) -> Vec<(ServiceKey, Service)> {
        self.services.iter().filter_map(Result::ok).collect()
    }

    pub fn set_service(&mut self, key: ServiceKey, service: Service) -> Result<(), KernelFault> {
        self.services
            .insert(key, service, 0)
            .map_err(|error| failed("write", names::FORWARD_SERVICES, &error))
    }

    pub fn remove_service(&mut self, key: &ServiceKey) -> Result<(), KernelFault> {
        match self.services.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed("write", names::FORWARD_SERVICES, &error)),
        }
    }

    pub fn reset_service(&mut self, slot: u16) -> Result<(), KernelFault> {
        reset(&mut self.service_counters, slot, names::FORWARD_SERVICE_COUNTERS)
    }

    pub fn reset_server(&mut self, slot: u16) -> Result<(), KernelFault> {
        self.cursors
            .set(slot.into(), Cursor::default(), 0)
            .map_err(|error| failed("write", names::FORWARD_CURSORS, &error))?;
        reset(&mut self.server_counters, slot, names::FORWARD_SERVER_COUNTERS)
    }

    pub fn service_counters(&self, slot: u16) -> Result<ServiceCounters, KernelFault> {
        let shares = self.service_counters.get(&slot.into(), 0);
        let shares = shares.map_err(|error| failed("read", names::FORWARD_SERVICE_COUNTERS, &error))?;
        let mut sum = ServiceCounters::default();
        shares.iter().for_each(|share| sum += *share);
        Ok(sum)
    }

    pub fn server_counters(&self, slot: u16) -> Result<ServerCounters, KernelFault> {
        let shares = self.server_counters.get(&slot.into(), 0);
        let shares = shares.map_err(|error| failed("read", names::FORWARD_SERVER_COUNTERS, &error))?;
        let mut sum = ServerCounters::default();
        shares.iter().for_each(|share| sum += *share);
        Ok(sum)
    }

    pub fn flows(&self, each: impl FnMut(&FlowKey, &Flow)) -> Result<(), KernelFault> {
        // SAFETY: the map was made by a program whose flows are of this layout (`shapes` of attach.rs).
        unsafe { entries::all(self.flows.fd().as_fd(), each) }
            .map_err(|error| KernelFault::system(format!("read {}", names::FORWARD_FLOWS), error))
    }

    pub fn replies(&self, each: impl FnMut(&FlowKey, &Origin)) -> Result<(), KernelFault> {
        // SAFETY: as above.
        unsafe { entries::all(self.replies.fd().as_fd(), each) }
            .map_err(|error| KernelFault::system(format!("read {}", names::FORWARD_REPLIES), error))
    }

    pub fn remove_flow(
        &self,
        key: &FlowKey,
        unwanted: impl FnOnce(&Flow) -> bool,
    ) -> Result<bool, KernelFault> {
        // SAFETY: as above.
        unsafe { entries::remove_if(self.flows.fd().as_fd(), key, unwanted) }
            .map_err(|error| KernelFault::system(format!("write to {}", names::FORWARD_FLOWS), error))
    }

    pub fn remove_reply(
        &self,
        key: &FlowKey,
        unwanted: impl FnOnce(&Origin) -> bool,
    ) -> Result<bool, KernelFault> {
        // SAFETY: as above.
        unsafe { entries::remove_if(self.replies.fd().as_fd(), key, unwanted) }
            .map_err(|error| KernelFault::system(format!("write to {}", names::FORWARD_REPLIES), error))
    }
}

fn reset<T: aya::Pod + Default>(
    map: &mut PerCpuArray<MapData, T>,
    slot: u16,
    name: &str,
) -> Result<(), KernelFault> {
    let cpus = nr_cpus().map_err(|(_, error)| KernelFault::system("reset the counters", error))?;
    let zeros = PerCpuValues::try_from(vec![T::default(); cpus])
        .map_err(|error| KernelFault::system("reset the counters", error))?;
    map.set(slot.into(), zeros, 0).map_err(|error| failed("write", name, &error))
}
