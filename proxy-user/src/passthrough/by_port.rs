//! Passthrough by port: what of it the kernel is to carry, and who of its servers gets new flows now.
//!
//! Pure: what runs and the moment are arguments. Whether the kernel *can* carry it (whether there is a way to the servers, and
//! a kernel that takes the programs) only the host can say; that is asked in [`crate::kernel::forward`]. What the kernel doesn't
//! carry comes to the listening socket of its entrypoint, and is relayed: connections by [`super::relay`], datagrams by
//! [`super::datagrams`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    balance::{Field, hash, maglev::Member, warmth},
    clock::Moment,
    config::model::{
        BalanceWay, CarriedRoute, Carries, Config, EntrypointId, HashKey, Offload, Service as Written,
        ServiceId, SourceAddress,
    },
    health::Status,
    kernel::Protocol,
    service::{Server, Service, WhenAllDown},
    snapshot::Snapshot,
    variants::MadeOf,
};

/// What the shares of all of a service's servers come to, roughly: fine enough for one in ten thousand of a split.
const WHOLE: f64 = 10_000_000.0;
/// A server that is warming up has its share changed in so many steps.
const STEPS_OF_WARMTH: f32 = 20.0;

/// An entrypoint that carries TCP or UDP, and everything that comes in there to one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ByPort {
    pub entrypoint: Arc<str>,
    pub route: Arc<str>,
    pub protocol: Protocol,
    pub bind: Vec<SocketAddr>,
    /// As the route names it.
    pub service: Arc<str>,
    pub way: Way,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    Kernel(Wanted),
    /// By the daemon, and why.
    Relay(Why),
}

/// What the kernel is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub keep_source: bool,
    /// All flows of a client's address go to one server.
    pub sticky: bool,
    pub idle: Duration,
    pub lifetime: Option<Duration>,
    /// Each once.
    pub targets: Vec<Target>,
}

/// A server, whoever's of the services it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub addr: SocketAddr,
    /// The service with servers that it belongs to.
    pub service: Arc<str>,
    /// Of the new flows. 0: none.
    pub share: u32,
    /// Probes say so, and nobody believes otherwise: its flows are cut.
    pub dead: bool,
}

/// Why the kernel isn't asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    Off { service: Arc<str> },
    SendProxy { service: Arc<str> },
    ProxyProtocol,
    Names,
    MixedSource,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off { service } => write!(f, "`offload` of service `{service}` is `off`"),
            Self::SendProxy { service } => {
                write!(f, "service `{service}` wants the PROXY protocol (`send_proxy`)")
            }
            Self::ProxyProtocol => f.write_str("the entrypoint reads the PROXY protocol"),
            Self::Names => f.write_str("other routes of the entrypoint go by name (`sni`)"),
            Self::MixedSource => f.write_str("only some of its services say `source = \"keep\"`"),
        }
    }
}

/// All of a running configuration, with the shares of this moment.
pub fn all(snapshot: &Snapshot, now: Moment) -> Vec<ByPort> {
    let config = &*snapshot.config;
    let routes = config.carried.iter().filter(|route| route.sni.is_empty());
    let entrypoints = routes.flat_map(|route| route.entrypoints.iter().map(move |id| (route, *id)));
    entrypoints.filter_map(|(route, id)| one(config, route, id, &snapshot.services, now)).collect()
}

/// Whom the kernel would be told of for an entrypoint, whether or not it carries it, and the route that leads there.
pub fn wanted_at(snapshot: &Snapshot, entrypoint: &str, now: Moment) -> Option<(Arc<str>, Wanted)> {
    let config = &*snapshot.config;
    let id = config.entrypoints.iter().position(|known| &*known.name == entrypoint).map(EntrypointId)?;
    let route = config.carried.iter().find(|route| route.sni.is_empty() && route.is_at(id))?;
    let service = &snapshot.services[route.service.0];
    Some((route.name.clone(), wanted(config, route.service, service, now)))
}

/// Whether there is anything of it at all.
pub fn is_wanted(config: &Config) -> bool {
    config.carried.iter().any(|route| route.sni.is_empty())
}

fn one(
    config: &Config,
    route: &CarriedRoute,
    id: EntrypointId,
    services: &[Arc<Service>],
    now: Moment,
) -> Option<ByPort> {
    let entrypoint = &config.entrypoints[id.0];
    let protocol = match entrypoint.carries {
        Carries::Tcp => Protocol::Tcp,
        Carries::Udp => Protocol::Udp,
        Carries::Http => return None,
    };
    let by_name = config.carried.iter().any(|other| !other.sni.is_empty() && other.is_at(id));
    let why = if by_name {
        Some(Why::Names)
    } else if entrypoint.proxy_protocol.is_some() {
        Some(Why::ProxyProtocol)
    } else {
        why_not(config, route.service)
    };
    Some(ByPort {
        entrypoint: entrypoint.name.clone(),
        route: route.name.clone(),
        protocol,
        bind: entrypoint.bind.clone(),
        service: config.services[route.service.0].name.clone(),
        way: match why {
            Some(why) => Way::Relay(why),
            None => Way::Kernel(wanted(config, route.service, &services[route.service.0], now)),
        },
    })
}

/// The services with servers that a service is made of; itself if it has servers.
fn leaves(config: &Config, id: ServiceId) -> Vec<&Written> {
    let service = &config.services[id.0];
    match &service.made_of {
        None => vec![service],
        Some(made_of) => made_of.parts().into_iter().flat_map(|part| leaves(config, part)).collect(),
    }
}

fn why_not(config: &Config, id: ServiceId) -> Option<Why> {
    let leaves = leaves(config, id);
    for leaf in &leaves {
        let service = leaf.name.clone();
        if leaf.offload == Offload::Off {
            return Some(Why::Off { service });
        }
        if leaf.send_proxy.is_some() {
            return Some(Why::SendProxy { service });
        }
    }
    let keeps = |leaf: &&&Written| leaf.source == SourceAddress::Keep;
    let keeping = leaves.iter().filter(keeps).count();
    (keeping != 0 && keeping != leaves.len()).then_some(Why::MixedSource)
}

fn wanted(config: &Config, id: ServiceId, service: &Service, now: Moment) -> Wanted {
    let leaves = leaves(config, id);
    let by_client =
        |leaf: &&Written| matches!(&leaf.balancing.way, BalanceWay::Hash { by: HashKey::Client, .. });
    let mut shared = Vec::new();
    share(service, 1.0, now, &mut shared);
    let mut targets: Vec<Target> = Vec::new();
    for Shared { service, server, share, dead } in shared {
        // Never nothing of what is something.
        let share = if share > 0.0 { ((share * WHOLE) as u32).max(1) } else { 0 };
        match targets.iter_mut().find(|known| known.addr == server.addr.0) {
            // In several services at once: it is dead if all of them say so.
            Some(known) => {
                known.share = known.share.saturating_add(share);
                known.dead &= dead;
            }
            None => {
                targets.push(Target { addr: server.addr.0, service: service.name.clone(), share, dead });
            }
        }
    }
    Wanted {
        keep_source: leaves.iter().any(|leaf| leaf.source == SourceAddress::Keep),
        // A split keeps a client with the variant that it got.
        sticky: service.made_of.is_some() || leaves.iter().all(by_client),
        // The longest patience and the shortest life of those that it is made of: a flow has one of each.
        idle: leaves.iter().map(|leaf| leaf.timeouts.idle).max().unwrap_or_default(),
        lifetime: leaves.iter().filter_map(|leaf| leaf.timeouts.lifetime).min(),
        targets,
    }
}

struct Shared<'a> {
    service: &'a Service,
    server: &'a Server,
    share: f64,
    dead: bool,
}

/// Shares a part of the new flows out among all servers below a service, those included that get none.
fn share<'a>(service: &'a Service, part: f64, now: Moment, shared: &mut Vec<Shared<'a>>) {
    match &service.made_of {
        None => among_servers(service, part, now, shared),
        Some(MadeOf::Split(split)) => {
            let weights = split.weights();
            let open = |index: usize| split.variants[index].service.can_answer();
            let weight = |index: usize| if open(index) { f64::from(weights.each[index]) } else { 0.0 };
            let whole: f64 = (0..split.variants.len()).map(weight).sum();
            for (index, variant) in split.variants.iter().enumerate() {
                let part = if whole > 0.0 { part * weight(index) / whole } else { 0.0 };
                share(&variant.service, part, now, shared);
            }
        }
        Some(MadeOf::Failover(parts)) => {
            let first = parts.iter().position(|part| part.can_answer());
            for (index, one) in parts.iter().enumerate() {
                share(one, if Some(index) == first { part } else { 0.0 }, now, shared);
            }
        }
        // What mirrors is refused when it is read.
        Some(MadeOf::Mirror(mirror)) => share(&mirror.service, part, now, shared),
    }
}

fn among_servers<'a>(service: &'a Service, part: f64, now: Moment, shared: &mut Vec<Shared<'a>>) {
    let works = service.servers.iter().any(|server| server.health.takes_work());
    let whoever = service.panics() || (!works && matches!(service.when_all_down, WhenAllDown::TryThen(_)));
    let field = service.balancer.now(&service.servers, whoever);
    let reach = service.balancer.reach.now(&field);
    let in_reach = |index: usize| reach.is_none_or(|reach| reach.contains(index));
    // If nobody in reach takes any, whoever does.
    let any = (0..field.len()).any(|index| in_reach(index) && field.takes_work(index));
    let weight = |index: usize| match field.takes_work(index) && (!any || in_reach(index)) {
        true => f64::from(field.weight(index)) * f64::from(in_steps(service, index, now)),
        false => 0.0,
    };
    let whole: f64 = (0..field.len()).map(weight).sum();
    for (index, server) in service.servers.iter().enumerate() {
        let share = if whole > 0.0 { part * weight(index) / whole } else { 0.0 };
        let dead = !whoever && server.health.verdict() == Status::Down;
        shared.push(Shared { service, server, share, dead });
    }
}

/// How warm a server is, not so finely that every look makes another table.
fn in_steps(service: &Service, index: usize, now: Moment) -> f32 {
    let slow_start = service.balancer.slow_start();
    if slow_start.is_zero() {
        return 1.0;
    }
    let warmth = warmth::warmth(service.servers[index].health.usable_since(), slow_start, now);
    (warmth * STEPS_OF_WARMTH).ceil() / STEPS_OF_WARMTH
}

/// A server as a table sees it: by its address and share alone, so that hosts with the same configuration agree.
pub fn member(addr: SocketAddr, share: u32) -> Member {
    Member { identity: hash::of(addr.to_string().as_bytes()), weight: share }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{acme::Board, config};

    const ENTRYPOINTS: &str = "[entrypoint.smtp]\nbind = '192.0.2.1:25'\nprotocol = 'tcp'\n\
                               [[route]]\nentrypoint = 'smtp'\npassthrough = 'mail'\n";

    fn snapshot(services: &str) -> Snapshot {
        let text = format!("{services}\n{ENTRYPOINTS}");
        let loaded =
            config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
        Snapshot::new(loaded.config.into(), &Board::default().into(), None).unwrap()
    }

    fn wanted(snapshot: &Snapshot) -> Wanted {
        match all(snapshot, Moment(0)).remove(0).way {
            Way::Kernel(wanted) => wanted,
            Way::Relay(why) => panic!("{why}"),
        }
    }

    /// In percent, by the last byte of the address.
    fn shares(snapshot: &Snapshot) -> Vec<(u8, u32)> {
        let percent = |target: &Target| (f64::from(target.share) / WHOLE * 100.0).round() as u32;
        let last = |target: &Target| match target.addr.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => panic!("{target:?}"),
        };
        wanted(snapshot).targets.iter().map(|target| (last(target), percent(target))).collect()
    }

    fn set(snapshot: &Snapshot, service: &str, index: usize, status: Status) {
        let service = snapshot.services.iter().find(|known| *known.name == *service).unwrap();
        service.servers[index].health.change(status, false, String::new());
    }

    const THREE: &str = "[service.mail]\nhealth = { tcp = true }\nservers = ['10.0.0.1:25', \
                         { address = '10.0.0.2:25', weight = 2 }, { address = '10.0.0.3:25', tier = 2 }]";

    #[test]
    fn new_flows_go_by_weight_to_who_is_well_in_the_first_tier() {
        let snapshot = snapshot(THREE);
        assert_eq!(shares(&snapshot), [(1, 0), (2, 0), (3, 0)], "nobody is known to be well");
        for index in 0..3 {
            set(&snapshot, "mail", index, Status::Up);
        }
        assert_eq!(shares(&snapshot), [(1, 33), (2, 67), (3, 0)]);
        set(&snapshot, "mail", 1, Status::Down);
        assert_eq!(shares(&snapshot), [(1, 100), (2, 0), (3, 0)]);
        set(&snapshot, "mail", 0, Status::Down);
        assert_eq!(shares(&snapshot), [(1, 0), (2, 0), (3, 100)]);
    }

    #[test]
    fn a_server_that_drains_gets_nothing_new_and_keeps_what_it_has() {
        let snapshot = snapshot(THREE);
        (0..3).for_each(|index| set(&snapshot, "mail", index, Status::Up));
        snapshot.services[0].servers[0].health.drained_by_word(true);
        assert_eq!(shares(&snapshot), [(1, 0), (2, 100), (3, 0)]);
        assert!(wanted(&snapshot).targets.iter().all(|target| !target.dead));
        set(&snapshot, "mail", 0, Status::Down);
        let dead: Vec<_> = wanted(&snapshot).targets.iter().map(|target| target.dead).collect();
        assert_eq!(dead, [true, false, false], "probes say so");
    }

    #[test]
    fn checks_that_nobody_believes_cut_no_flows() {
        let snapshot = snapshot(&THREE.replacen("health", "when_all_down = 'try'\nhealth", 1));
        (0..3).for_each(|index| set(&snapshot, "mail", index, Status::Down));
        let wanted = wanted(&snapshot);
        assert!(wanted.targets.iter().all(|target| !target.dead), "{wanted:?}");
        assert!(wanted.targets.iter().any(|target| target.share > 0), "{wanted:?}");
    }

    #[test]
    fn splits_and_failovers_share_out_what_their_services_can_take() {
        let snapshot = snapshot(
            "[service.new]\nhealth = { tcp = true }\nservers = ['10.0.0.1:25', '10.0.0.2:25']\n\
             [service.old]\nhealth = { tcp = true }\nservers = '10.0.0.3:25'\n\
             [service.spare]\nservers = '10.0.0.4:25'\n\
             [service.both]\nsplit = { new = 20, old = 80 }\n\
             [service.mail]\nfailover = ['both', 'spare']",
        );
        set(&snapshot, "new", 0, Status::Up);
        set(&snapshot, "new", 1, Status::Up);
        set(&snapshot, "old", 0, Status::Up);
        assert_eq!(shares(&snapshot), [(1, 10), (2, 10), (3, 80), (4, 0)]);
        assert!(wanted(&snapshot).sticky, "a client stays with its variant");
        set(&snapshot, "old", 0, Status::Down);
        assert_eq!(shares(&snapshot), [(1, 50), (2, 50), (3, 0), (4, 0)]);
        set(&snapshot, "new", 0, Status::Down);
        set(&snapshot, "new", 1, Status::Down);
        assert_eq!(shares(&snapshot), [(1, 0), (2, 0), (3, 0), (4, 100)]);
    }

    #[test]
    fn what_the_kernel_cannot_do_is_relayed() {
        for (service, why) in [
            ("offload = 'off'", "`offload` of service `mail` is `off`"),
            ("send_proxy = 'v2'", "service `mail` wants the PROXY protocol (`send_proxy`)"),
        ] {
            let snapshot = snapshot(&format!("[service.mail]\nservers = '10.0.0.1:25'\n{service}"));
            match &all(&snapshot, Moment(0))[0].way {
                Way::Relay(told) => assert_eq!(told.to_string(), why),
                Way::Kernel(_) => panic!("{service}"),
            }
        }
    }

    #[test]
    fn hosts_that_know_the_same_servers_choose_alike() {
        let addresses = ["10.0.0.1:25", "10.0.0.2:25", "10.0.0.3:25"].map(|text| text.parse().unwrap());
        let table = |order: &[usize]| {
            let members: Vec<_> = order.iter().map(|index| member(addresses[*index], 1)).collect();
            let table = crate::balance::maglev::Maglev::of_size(&members, 4093);
            table.slots().iter().map(|slot| addresses[order[usize::from(*slot)]]).collect::<Vec<_>>()
        };
        assert_eq!(table(&[0, 1, 2]), table(&[2, 0, 1]));
    }
}
