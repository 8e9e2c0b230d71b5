//! The flows that there are, for people: from the pins alone, whether or not a daemon runs. Those that are carried by port, and
//! those that came in by name and were handed over.

use std::{cmp::Reverse, net::SocketAddr, path::Path};

use proxy_common::{
    flow::{Flow, FlowKey, State},
    forward::service::KEEP_SOURCE,
    names, scope,
};
use serde::{Deserialize, Serialize};

use super::{KernelFault, maps::Maps, sweep, written::address};
use crate::kernel::{Protocol, pins::Pins, translate};

/// Which flows are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Only those of this service.
    pub service: Option<String>,
    /// Those with the latest packets, so many.
    pub most: usize,
    /// The services that there are: of a flow that was handed over, the kernel knows its service's name only as a hash.
    pub services: Vec<String>,
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
    /// It came in by name, and was handed to the kernel; bytes are those of payload since then.
    #[serde(default)]
    pub handed_over: bool,
    pub age_seconds: f64,
    pub idle_seconds: f64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    /// The generation of the configuration by which it began. 0: it isn't known.
    pub generation: u64,
}

/// What is in the kernel. `None`: nothing is carried there.
pub fn observe(bpffs: &Path, wish: &Wish) -> Result<Option<Flows>, KernelFault> {
    let pins = Pins::below(bpffs);
    let is_there = |map: &str| pins.map(map).exists();
    if !is_there(names::FORWARD_FLOWS) && !is_there(names::TRANSLATE_FLOWS) {
        return Ok(None);
    }
    let now = sweep::now()?;
    let mut found = Flows::default();
    let mut told = if is_there(names::FORWARD_FLOWS) {
        by_port(&Maps::open(&pins)?, wish, now, &mut found)?
    } else {
        Vec::new()
    };
    let fits = |flow: &FlowStatus| wish.service.as_deref().is_none_or(|wanted| flow.service == wanted);
    for (last, flow) in translate::flows::observe(bpffs, &wish.services, now)? {
        if fits(&flow) {
            found.all += 1;
            *found.states.entry(flow.state.clone()).or_default() += 1;
            told.push((last, flow));
        }
    }
    told.sort_unstable_by_key(|(last, _)| Reverse(*last));
    told.truncate(wish.most);
    found.flows = told.into_iter().map(|(_, flow)| flow).collect();
    Ok(Some(found))
}

/// Those with the latest packets, with their times.
fn by_port(
    maps: &Maps,
    wish: &Wish,
    now: u64,
    found: &mut Flows,
) -> Result<Vec<(u64, FlowStatus)>, KernelFault> {
    let (names, timeouts) = (maps.service_names()?, maps.settings()?.timeouts);
    let name = |slot: u16| names.get(usize::from(slot)).and_then(|name| name.as_deref());
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
    chosen.sort_unstable_by_key(|(_, flow)| Reverse(flow.last_packet));
    chosen.truncate(wish.most);
    let told =
        chosen.iter().map(|(key, flow)| (flow.last_packet, status(key, flow, name(flow.service), now)));
    Ok(told.collect())
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
        handed_over: false,
        age_seconds: seconds(flow.began),
        idle_seconds: seconds(flow.last_packet),
        packets_sent: flow.sent.packets,
        bytes_sent: flow.sent.bytes,
        packets_received: flow.received.packets,
        bytes_received: flow.received.bytes,
        generation: flow.generation,
    }
}
