//! The flows that there are, for people: from the pins alone, whether or not a daemon runs.

use std::{net::SocketAddr, path::Path};

use proxy_common::{
    flow::{Flow, FlowKey, State},
    forward::service::KEEP_SOURCE,
    scope,
};
use serde::{Deserialize, Serialize};

use super::{KernelFault, maps::Maps, sweep, written::address};
use crate::kernel::{Protocol, pins::Pins};

/// Which flows are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Only those of this service.
    pub service: Option<String>,
    /// Those with the latest packets, so many.
    pub most: usize,
}

/// Flows, and how many there are that were not asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Flows {
    /// The latest packet first.
    pub flows: Vec<FlowStatus>,
    /// All that fit the wish.
    pub all: u64,
    /// Of all that fit: how many are in which state.
    pub states: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlowStatus {
    pub service: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// Where it came in.
    #[schema(value_type = String)]
    pub entrypoint: SocketAddr,
    /// Whom the server sees; the client itself where its address is kept.
    #[schema(value_type = String)]
    pub source: SocketAddr,
    #[schema(value_type = String)]
    pub server: SocketAddr,
    pub state: String,
    pub source_kept: bool,
    pub age_seconds: f64,
    pub idle_seconds: f64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    /// The generation of the configuration by which it began.
    pub generation: u64,
}

/// What is in the kernel. `None`: nothing is forwarded there.
pub fn observe(bpffs: &Path, wish: &Wish) -> Result<Option<Flows>, KernelFault> {
    let pins = Pins::below(bpffs);
    if !pins.map(proxy_common::names::FORWARD_FLOWS).exists() {
        return Ok(None);
    }
    read(&Maps::open(&pins)?, wish).map(Some)
}

fn read(maps: &Maps, wish: &Wish) -> Result<Flows, KernelFault> {
    let (names, now) = (maps.service_names()?, sweep::now()?);
    let timeouts = maps.settings()?.timeouts;
    let name = |slot: u16| names.get(usize::from(slot)).and_then(|name| name.as_deref());
    let mut found = Flows::default();
    let mut chosen: Vec<(FlowKey, Flow)> = Vec::new();
    maps.flows(|key, flow| {
        let fits = wish.service.as_deref().is_none_or(|wanted| name(flow.service) == Some(wanted));
        if !fits || flow.is_over(&timeouts, now) {
            return;
        }
        found.all += 1;
        let state = State::of_number(flow.state).map_or("unknown", State::name);
        *found.states.entry(state.to_owned()).or_default() += 1;
        chosen.push((*key, *flow));
    })?;
    chosen.sort_unstable_by_key(|(_, flow)| std::cmp::Reverse(flow.last_packet));
    chosen.truncate(wish.most);
    let told = chosen.iter().map(|(key, flow)| status(key, flow, name(flow.service), now));
    found.flows = told.collect();
    Ok(found)
}

fn status(key: &FlowKey, flow: &Flow, service: Option<&str>, now: u64) -> FlowStatus {
    let seconds = |since: u64| now.saturating_sub(since) as f64 / 1e9;
    FlowStatus {
        service: service.map_or_else(|| format!("#{}", flow.service), str::to_owned),
        protocol: if key.protocol == u16::from(scope::UDP) { Protocol::Udp } else { Protocol::Tcp }
            .name()
            .into(),
        client: address(key.source, key.source_port),
        entrypoint: address(key.destination, key.destination_port),
        source: address(flow.source, flow.source_port),
        server: address(flow.server, flow.server_port),
        state: State::of_number(flow.state).map_or("unknown", State::name).to_owned(),
        source_kept: flow.flags & KEEP_SOURCE != 0,
        age_seconds: seconds(flow.began),
        idle_seconds: seconds(flow.last_packet),
        packets_sent: flow.sent.packets,
        bytes_sent: flow.sent.bytes,
        packets_received: flow.received.packets,
        bytes_received: flow.received.bytes,
        generation: flow.generation,
    }
}
