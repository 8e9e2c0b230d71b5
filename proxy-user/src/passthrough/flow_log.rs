//! The lines of flows that the kernel has carried, written when it is cleared up after them: to the same logs and in the same form
//! as those of the relay.
//!
//! What an entrypoint or a server is called is looked up in the configuration that runs now; where it has them no more, their
//! addresses are told.

use std::{net::SocketAddr, time::SystemTime};

use crate::{
    access_log::{WorkerLog, connections::Connection},
    config::model::{Carries, Config, EntrypointId},
    kernel::{Protocol, forward::Ended},
    service::Service,
    snapshot::Snapshot,
};

/// Whether anybody reads them.
pub fn is_wanted(snapshot: &Snapshot) -> bool {
    !snapshot.access_logs.outputs.is_empty()
}

/// `at`: when they were found to be over.
pub fn write(snapshot: &Snapshot, flows: &[Ended], at: SystemTime) {
    if flows.is_empty() {
        return;
    }
    // Dropped at the end, which hands over what it holds.
    let log = WorkerLog::default();
    log.switch_to(&snapshot.access_logs);
    for flow in flows {
        let config = &*snapshot.config;
        let id = entrypoint(config, flow);
        let place = flow.entrypoint.to_string();
        let route = id.and_then(|id| {
            config.carried.iter().find(|route| route.sni.is_empty() && route.is_at(id)).map(|one| &*one.name)
        });
        let address = flow.server.to_string();
        let server = server(&snapshot.services, flow);
        log.connection(&Connection {
            ts: at.checked_sub(flow.age).unwrap_or(at),
            kind: "connection",
            client_ip: flow.client.ip(),
            client_port: flow.client.port(),
            protocol: flow.protocol.name(),
            in_kernel: true,
            entrypoint: id.map_or(&place, |id| &config.entrypoints[id.0].name),
            sni: None,
            route,
            service: server.map(|(service, _)| &*service.name).or(flow.service.as_deref()),
            upstream: Some(server.map_or(&address, |(_, label)| label)),
            upstream_us: None,
            attempts: &[],
            bytes_in: flow.bytes_sent,
            bytes_out: flow.bytes_received,
            duration_us: u64::try_from(flow.lasted.as_micros()).unwrap_or(u64::MAX),
            end: flow.end,
            ended_by: flow.by,
        });
    }
}

fn entrypoint(config: &Config, flow: &Ended) -> Option<EntrypointId> {
    let carries = match flow.protocol {
        Protocol::Tcp => Carries::Tcp,
        Protocol::Udp => Carries::Udp,
    };
    let is_it = |bind: &SocketAddr| {
        let (ip, other) = (bind.ip().to_canonical(), flow.entrypoint.ip());
        bind.port() == flow.entrypoint.port()
            && (ip == other || (ip.is_unspecified() && ip.is_ipv4() == other.is_ipv4()))
    };
    let mut all = config.entrypoints.iter();
    all.position(|known| known.carries == carries && known.bind.iter().any(is_it)).map(EntrypointId)
}

/// The one that has the server, below the service that the route names, and how logs spell the server.
fn server<'a>(services: &'a [std::sync::Arc<Service>], flow: &Ended) -> Option<(&'a Service, &'a str)> {
    let named = services.iter().find(|service| flow.service.as_deref() == Some(&*service.name))?;
    // What is made of others has none itself: any that it may be made of will do, since a server is called the same in all.
    let own = if named.made_of.is_none() { std::slice::from_ref(named) } else { services };
    own.iter().find_map(|service| {
        let found = service.servers.iter().find(|server| server.addr.0 == flow.server)?;
        Some((&**service, &*found.label))
    })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        access_log::connections::{By, End},
        acme::Board,
        config,
    };

    #[test]
    fn a_flow_is_told_with_the_names_that_the_configuration_has_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let text = format!(
            "[log]\naccess = '{}'\n[entrypoint.smtp]\nbind = '0.0.0.0:25'\nprotocol = 'tcp'\n\
             [service.old]\nservers = '10.0.0.1:25'\n[service.new]\nservers = '10.0.0.2:25'\n\
             [service.mail]\nsplit = {{ old = 1, new = 1 }}\n\
             [[route]]\nname = 'letters'\nentrypoint = 'smtp'\npassthrough = 'mail'\n",
            file.display()
        );
        let config =
            config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
        let snapshot = Snapshot::new(config.config.into(), &Board::default().into(), None).unwrap();
        let known = Ended {
            protocol: Protocol::Tcp,
            client: "203.0.113.9:40000".parse().unwrap(),
            entrypoint: "198.51.100.1:25".parse().unwrap(),
            service: Some("mail".into()),
            server: "10.0.0.2:25".parse().unwrap(),
            bytes_sent: 700,
            bytes_received: 9000,
            age: Duration::from_secs(10),
            lasted: Duration::from_secs(3),
            end: End::Closed,
            by: By::Client,
        };
        let gone = Ended {
            protocol: Protocol::Udp,
            service: None,
            server: "10.0.0.9:53".parse().unwrap(),
            ..known.clone()
        };
        write(&snapshot, &[known, gone], SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_704_144));
        snapshot.access_logs.settle();
        let told = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[0],
            "{\"ts\":\"2025-11-21T05:48:54.000Z\",\"kind\":\"connection\",\"client_ip\":\"203.0.113.9\",\"client_port\":40000,\
             \"protocol\":\"tcp\",\"in_kernel\":true,\"entrypoint\":\"smtp\",\"route\":\"letters\",\"service\":\"new\",\
             \"upstream\":\"10.0.0.2:25\",\"bytes_in\":700,\"bytes_out\":9000,\"duration_us\":3000000,\"end\":\"closed\",\
             \"ended_by\":\"client\"}"
        );
        let gone = "\"protocol\":\"udp\",\"in_kernel\":true,\"entrypoint\":\"198.51.100.1:25\",\"upstream\":\"10.0.0.9:53\",";
        assert!(lines[1].contains(gone), "{}", lines[1]);
        assert_eq!(lines.len(), 2);
    }
}
