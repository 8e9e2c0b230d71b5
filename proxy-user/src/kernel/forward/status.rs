//! What was forwarded and what wasn't, by service and server: from counters that outlive daemons.

use std::{collections::BTreeMap, net::SocketAddr};

use proxy_common::forward::{ServerState, StopReason};
use serde::{Deserialize, Serialize};

use super::{Forwarder, KernelFault, written::address};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    pub services: Vec<ServiceFigures>,
    pub servers: Vec<ServerFigures>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceFigures {
    pub service: String,
    /// How many flows are in which state.
    pub flows: BTreeMap<String, u64>,
    pub opened: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    /// Packets that were not forwarded, by reason; all reasons.
    pub stopped: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerFigures {
    #[schema(value_type = String)]
    pub server: SocketAddr,
    /// It is down: its clients are reset.
    pub dead: bool,
    /// Flows that are not over.
    pub flows: u64,
    pub opened: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Packets that were answered by a reset.
    pub reset: u64,
}

impl Forwarder {
    /// Flows are as the last sweep has found them.
    pub fn status(&self) -> Result<ForwardStatus, KernelFault> {
        let swept = &self.swept;
        let mut services: BTreeMap<String, ServiceFigures> = BTreeMap::new();
        // Known here: only counters have to be asked for.
        for (slot, name) in (0u16..).zip(self.written.names()) {
            let Some(name) = name else { continue };
            let counted = self.maps.service_counters(slot)?;
            let service = &**name;
            let figures = services.entry(service.to_owned()).or_insert_with(|| ServiceFigures {
                service: service.to_owned(),
                ..ServiceFigures::default()
            });
            figures.opened += counted.opened;
            figures.packets_sent += counted.sent.packets;
            figures.bytes_sent += counted.sent.bytes;
            figures.packets_received += counted.received.packets;
            figures.bytes_received += counted.received.bytes;
            for reason in StopReason::ALL {
                *figures.stopped.entry(reason.name().to_owned()).or_default() +=
                    counted.stopped(reason).packets;
            }
            for (state, flows) in swept.services.get(&slot).into_iter().flatten() {
                *figures.flows.entry((*state).to_owned()).or_default() += flows;
            }
        }
        let mut servers = Vec::new();
        for (slot, server) in (0u16..).zip(self.written.servers()).skip(1) {
            if server.state == ServerState::Vacant as u16 {
                continue;
            }
            let counted = self.maps.server_counters(slot)?;
            servers.push(ServerFigures {
                server: address(server.address, server.port),
                dead: server.state == ServerState::Dead as u16,
                flows: swept.servers.get(&slot).copied().unwrap_or_default(),
                opened: counted.opened,
                bytes_sent: counted.sent.bytes,
                bytes_received: counted.received.bytes,
                reset: counted.reset,
            });
        }
        servers.sort_by_key(|server| server.server);
        Ok(ForwardStatus { services: services.into_values().collect(), servers })
    }
}
