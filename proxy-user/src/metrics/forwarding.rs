//! Of what the kernel carries by port, and of what was handed to it by name.

use super::exposition::{Exposition, Kind};
use crate::{
    admin::status::forwarding::ForwardingStatus,
    handover::Standing,
    kernel::forward::{ServerFigures, ServiceFigures},
};

pub fn tell(out: &mut Exposition, status: &ForwardingStatus) {
    let mut family = out.family(
        "weir_forward_entrypoint_in_kernel",
        Kind::Gauge,
        "1 if the kernel carries what comes in at an entrypoint of TCP or UDP, 0 if the daemon relays it.",
    );
    let mut told: Vec<(&str, bool)> = Vec::new();
    for one in &status.entrypoints {
        let carried = one.why_not.is_none();
        match told.iter_mut().find(|(entrypoint, _)| *entrypoint == one.entrypoint) {
            // Of one family it is, of the other it isn't.
            Some((_, known)) => *known &= carried,
            None => told.push((&one.entrypoint, carried)),
        }
    }
    for (entrypoint, carried) in told {
        family.sample(&[("entrypoint", entrypoint)], super::flag(carried));
    }
    let mut family = out.family("weir_forward_flows", Kind::Gauge, "Flows that the kernel knows, by state.");
    for one in &status.services {
        for (state, flows) in &one.flows {
            family.sample(&[("service", &one.service), ("state", state)], *flows as f64);
        }
    }
    let mut family = out.family(
        "weir_forward_opened_flows_total",
        Kind::LastingCounter,
        "Flows that have begun in the kernel.",
    );
    for one in &status.services {
        family.sample(&[("service", &one.service)], one.opened as f64);
    }
    type Of = fn(&ServiceFigures) -> [u64; 2];
    let families: [(&str, &str, Of); 2] = [
        ("packets", "Packets that the kernel carried.", |one| [one.packets_sent, one.packets_received]),
        ("bytes", "Bytes of packets that the kernel carried.", |one| [one.bytes_sent, one.bytes_received]),
    ];
    for (unit, help, of) in families {
        let mut family = out.family(&format!("weir_forward_{unit}_total"), Kind::LastingCounter, help);
        for one in &status.services {
            for (direction, count) in ["to_server", "to_client"].into_iter().zip(of(one)) {
                family.sample(&[("service", &one.service), ("direction", direction)], count as f64);
            }
        }
    }
    let mut family = out.family(
        "weir_forward_stopped_packets_total",
        Kind::LastingCounter,
        "Packets that the kernel did not carry on, by reason (docs/passthrough.md).",
    );
    for one in &status.services {
        for (reason, packets) in &one.stopped {
            family.sample(&[("service", &one.service), ("reason", reason)], *packets as f64);
        }
    }
    type OfServer = fn(&ServerFigures) -> u64;
    let families: [(&str, Kind, &str, OfServer); 3] = [
        ("weir_forward_server_flows", Kind::Gauge, "Flows to the server that are not over.", |one| one.flows),
        (
            "weir_forward_server_opened_flows_total",
            Kind::LastingCounter,
            "Flows that have begun to the server.",
            |one| one.opened,
        ),
        (
            "weir_forward_server_reset_packets_total",
            Kind::LastingCounter,
            "Packets for the server that were answered by a reset, since it is down.",
            |one| one.reset,
        ),
    ];
    for (name, kind, help, of) in families {
        let mut family = out.family(name, kind, help);
        for one in &status.servers {
            family.sample(&[("server", &one.server.to_string())], of(one) as f64);
        }
    }
    if let Some(standing) = &status.handed_over {
        handed_over(out, standing);
    }
}

fn handed_over(out: &mut Exposition, standing: &Standing) {
    let Standing { carried, handed_over, ended, refused, packets, dropped, too_long, errors, .. } = standing;
    let families = [
        (
            "weir_handover_open_connections",
            Kind::Gauge,
            "Connections by name that the kernel carries now.",
            *carried as u64,
        ),
        (
            "weir_handover_connections_total",
            Kind::Counter,
            "Connections by name that were handed to the kernel.",
            *handed_over,
        ),
        ("weir_handover_ended_total", Kind::Counter, "Those that have ended.", *ended),
        (
            "weir_handover_packets_total",
            Kind::Counter,
            "Packets that went from one connection into the other.",
            *packets,
        ),
        ("weir_handover_dropped_packets_total", Kind::Counter, "Packets that could not.", *dropped),
        (
            "weir_handover_too_long_packets_total",
            Kind::Counter,
            "Packets that were too long for the way on, and answered by an ICMP error.",
            *too_long,
        ),
        ("weir_handover_errors_total", Kind::Counter, "ICMP errors that were passed on.", *errors),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help).sample(&[], value as f64);
    }
    let mut family = out.family(
        "weir_handover_refused_total",
        Kind::Counter,
        "Connections that stayed with the relay, by reason (docs/passthrough.md).",
    );
    for (why, count) in refused {
        family.sample(&[("reason", why)], *count as f64);
    }
}
