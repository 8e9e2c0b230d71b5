//! The connections that were handed to the kernel, as `weir flows` tells of them: from the pins alone.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{
    flow::State,
    names,
    translate::{self, Flow, FlowKey, seen, side, stage},
};

use super::ends;
use crate::kernel::{KernelFault, forward::flows::FlowStatus, pins::Pins};

/// All of them, with the time of their last packet. `services`: names of services that they may be of. `now` is the kernel's.
pub fn observe(bpffs: &Path, services: &[String], now: u64) -> Result<Vec<(u64, FlowStatus)>, KernelFault> {
    let pin = Pins::below(bpffs).map(names::TRANSLATE_FLOWS);
    if !pin.exists() {
        return Ok(Vec::new());
    }
    let failed = |error: &(dyn std::error::Error + 'static)| {
        KernelFault::aya(format!("read {}", names::TRANSLATE_FLOWS), error)
    };
    let map = MapData::from_pin(&pin).map_err(|error| failed(&error))?;
    let map: HashMap<_, FlowKey, Flow> =
        HashMap::try_from(Map::HashMap(map)).map_err(|error| failed(&error))?;
    // One that ends meanwhile is missing.
    let all: std::collections::HashMap<FlowKey, Flow> = map.iter().filter_map(Result::ok).collect();
    let clients = all.iter().filter(|(_, up)| up.side == side::CLIENT && up.stage == stage::JOINED);
    let told = clients.filter_map(|(key, up)| {
        let down = all.get(&up.other_side())?;
        Some((up.last.max(down.last), status(key, up, down, services, now)))
    });
    Ok(told.collect())
}

fn status(key: &FlowKey, up: &Flow, down: &Flow, services: &[String], now: u64) -> FlowStatus {
    let seconds = |since: u64| now.saturating_sub(since) as f64 / 1e9;
    let service = services.iter().find(|name| translate::service(name) == up.service);
    let (client, entrypoint) = ends(key);
    let (source, server) = ends(&FlowKey { source: up.source, destination: up.destination, ports: up.ports });
    FlowStatus {
        service: service.map_or_else(|| format!("#{:016x}", up.service), Clone::clone),
        protocol: "tcp".to_owned(),
        client,
        entrypoint,
        source,
        server,
        state: state(up, down).name().to_owned(),
        source_kept: false,
        handed_over: true,
        age_seconds: seconds(up.begun),
        idle_seconds: seconds(up.last.max(down.last)),
        packets_sent: up.packets,
        bytes_sent: up.bytes,
        packets_received: down.packets,
        bytes_received: down.bytes,
        generation: 0,
    }
}

/// As a connection that is carried by port would be called.
fn state(up: &Flow, down: &Flow) -> State {
    if up.seen & down.seen & seen::RESET != 0 {
        return if up.seen & seen::SENT_RESET != 0 { State::ResetByClient } else { State::ResetByServer };
    }
    match (up.seen & seen::FIN != 0, down.seen & seen::FIN != 0) {
        (true, true) if up.is_done() && down.is_done() => State::Closed,
        (true, true) => State::Closing,
        (true, false) => State::ClientClosed,
        (false, true) => State::ServerClosed,
        (false, false) => State::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_both_sides_have_said() {
        let flow = |seen| Flow { seen, ..Flow::default() };
        let done = seen::FIN | seen::PEER_FIN | seen::PEER_FIN_ACKED;
        for (up, down, expected) in [
            (0, 0, State::Open),
            (seen::FIN, seen::PEER_FIN, State::ClientClosed),
            (seen::PEER_FIN, seen::FIN, State::ServerClosed),
            (seen::FIN | seen::PEER_FIN, done, State::Closing),
            (done, done, State::Closed),
            (done | seen::RESET, done, State::Closed),
            (seen::RESET | seen::SENT_RESET, seen::RESET, State::ResetByClient),
            (seen::RESET, seen::RESET | seen::SENT_RESET, State::ResetByServer),
        ] {
            assert_eq!(state(&flow(up), &flow(down)), expected, "{up:b} {down:b}");
        }
    }
}
