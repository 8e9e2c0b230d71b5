//! Connections that are carried untouched.

use super::exposition::{Exposition, Kind};
use crate::admin::status::{EntrypointStatus, ServiceStatus, carried::CarryingStatus};

pub fn tell(out: &mut Exposition, entrypoints: &[EntrypointStatus], services: &[ServiceStatus]) {
    let mut family = out.family(
        "weir_passthrough_not_carried_total",
        Kind::Counter,
        "Connections that no passthrough route takes, or that told no name, and datagrams that the daemon did not carry on, by \
         reason (docs/passthrough.md).",
    );
    for one in entrypoints {
        for (reason, count) in &one.not_carried {
            family.sample(&[("entrypoint", &one.name), ("reason", reason)], *count as f64);
        }
    }
    let servers = || {
        let all = services.iter().flat_map(|service| service.servers.iter().map(move |one| (service, one)));
        all.filter_map(|(service, server)| Some((service, server, server.carrying.as_ref()?)))
    };
    for (name, kind, help, of) in [
        (
            "weir_passthrough_connections_total",
            Kind::Counter,
            "Connections that were carried to the server untouched.",
            (|one| one.connections) as fn(&CarryingStatus) -> u64,
        ),
        ("weir_passthrough_open_connections", Kind::Gauge, "Those of them that are open.", |one| {
            one.active.into()
        }),
        (
            "weir_passthrough_failures_total",
            Kind::Counter,
            "Attempts to reach the server for such a connection that failed.",
            |one| one.failures,
        ),
    ] {
        let mut family = out.family(name, kind, help);
        for (service, server, carrying) in servers() {
            let labels = [("service", &*service.name), ("server", &*server.address)];
            family.sample(&labels, of(carrying) as f64);
        }
    }
    let mut family =
        out.family("weir_passthrough_bytes_total", Kind::Counter, "Bytes that were carried untouched.");
    for (service, server, carrying) in servers() {
        for (to, bytes) in [("server", carrying.bytes_to_server), ("client", carrying.bytes_to_client)] {
            let labels = [("service", &*service.name), ("server", &*server.address), ("to", to)];
            family.sample(&labels, bytes as f64);
        }
    }
}
