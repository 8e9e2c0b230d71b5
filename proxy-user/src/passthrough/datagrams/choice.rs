//! Who gets a new session: by the table and the hash that the kernel goes by, out of the same shares. So a client stays with its
//! server when the kernel takes over from the relay, or leaves it to it, and every edge host chooses alike.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proxy_common::forward::{Lookup, PLACES, hash};
use tokio::time::Instant;

use crate::{
    balance::maglev::Maglev,
    clock::Moment,
    passthrough::by_port::{self, Target, Wanted},
    service::Service,
    snapshot::Snapshot,
};

/// How late a change of a server's health may be for new sessions, as in the kernel.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was made when somebody last asked.
#[derive(Debug, Default)]
pub struct Choice {
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    /// The snapshot that it was made of.
    generation: u64,
    at: Instant,
    route: Arc<str>,
    wanted: Wanted,
    /// Of IPv4 and IPv6; what they lead to are indices among the targets.
    tables: [Table; 2],
}

#[derive(Debug)]
struct Table {
    among: Vec<usize>,
    places: Maglev,
}

#[derive(Debug)]
pub struct Chosen {
    pub route: Arc<str>,
    /// The one that has the server.
    pub service: Arc<Service>,
    pub index: usize,
}

impl Choice {
    /// `None`: nobody takes any.
    pub fn choose(&mut self, snapshot: &Snapshot, entrypoint: &str, client: SocketAddr) -> Option<Chosen> {
        let made = self.now(snapshot, entrypoint)?;
        let target = made.target(client)?;
        let service = snapshot.services.iter().find(|service| service.name == target.service)?;
        let index = service.servers.iter().position(|server| server.addr.0 == target.addr)?;
        Some(Chosen { route: made.route.clone(), service: service.clone(), index })
    }

    fn now(&mut self, snapshot: &Snapshot, entrypoint: &str) -> Option<&Made> {
        let now = Instant::now();
        let is_fresh = |made: &Made| made.generation == snapshot.generation && now < made.at + LOOK_EVERY;
        if !self.made.as_ref().is_some_and(is_fresh) {
            let (route, wanted) = by_port::wanted_at(snapshot, entrypoint, Moment::now())?;
            match &mut self.made {
                // The tables are the dear part.
                Some(made) if made.wanted == wanted => {
                    (made.generation, made.at, made.route) = (snapshot.generation, now, route);
                }
                made => {
                    let tables = [table(&wanted.targets, false), table(&wanted.targets, true)];
                    *made = Some(Made { generation: snapshot.generation, at: now, route, wanted, tables });
                }
            }
        }
        self.made.as_ref()
    }
}

impl Made {
    fn target(&self, client: SocketAddr) -> Option<&Target> {
        let v6 = client.ip().to_canonical().is_ipv6();
        // The kernel makes no IPv4 of IPv6; a relay can, where there is nobody of the same family.
        let table = [usize::from(v6), usize::from(!v6)].map(|family| &self.tables[family]);
        let table = table.into_iter().find(|table| !table.places.slots().is_empty())?;
        let port = if self.wanted.sticky { 0 } else { client.port() };
        let place = Lookup::place(hash(words(client.ip()), port));
        let among = usize::from(*table.places.slots().get(place)?);
        self.wanted.targets.get(*table.among.get(among)?)
    }
}

fn table(targets: &[Target], v6: bool) -> Table {
    let of_family = |target: &Target| target.addr.ip().to_canonical().is_ipv6() == v6;
    let among: Vec<usize> = (0..targets.len()).filter(|index| of_family(&targets[*index])).collect();
    let members: Vec<_> =
        among.iter().map(|index| by_port::member(targets[*index].addr, targets[*index].share)).collect();
    Table { among, places: Maglev::of_size(&members, PLACES as u64) }
}

/// An address as the kernel hashes it: IPv4 in its IPv6 form, four words of bytes in their order.
fn words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::Path};

    use super::*;
    use crate::{acme::Board, config};

    fn snapshot(service: &str) -> Snapshot {
        let text = format!(
            "[entrypoint.dns]\nbind = ['192.0.2.1:53', '[2001:db8::1]:53']\nprotocol = 'udp'\n{service}\n\
             [[route]]\nname = 'names'\nentrypoint = 'dns'\npassthrough = 'pool'\n"
        );
        let config =
            config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
        Snapshot::new(config.config.into(), &Board::default().into(), None).unwrap()
    }

    fn client(port: u16) -> SocketAddr {
        SocketAddr::new([203, 0, 113, 9].into(), port)
    }

    #[test]
    fn clients_are_shared_out_and_each_gets_the_same_server_again() {
        let snapshot = snapshot("[service.pool]\nservers = ['10.0.0.1:53', '10.0.0.2:53', '[fd00::1]:53']");
        let (mut one, mut other) = (Choice::default(), Choice::default());
        let mut counts: HashMap<usize, u32> = HashMap::new();
        for port in 1000..2000 {
            let chosen = one.choose(&snapshot, "dns", client(port)).unwrap();
            assert_eq!(chosen.index, other.choose(&snapshot, "dns", client(port)).unwrap().index);
            assert_eq!((&*chosen.route, &*chosen.service.name), ("names", "pool"));
            *counts.entry(chosen.index).or_default() += 1;
        }
        assert!(!counts.contains_key(&2), "a server of the other family is for who has no other");
        assert!(counts[&0] > 400 && counts[&1] > 400, "{counts:?}");
    }

    #[test]
    fn a_client_of_a_family_without_servers_gets_one_of_the_other() {
        let snapshot = snapshot("[service.pool]\nservers = '[fd00::1]:53'");
        assert!(Choice::default().choose(&snapshot, "dns", client(1)).is_some());
    }

    #[test]
    fn all_ports_of_a_client_go_together_where_that_is_asked() {
        let snapshot = snapshot(
            "[service.pool]\nservers = ['10.0.0.1:53', '10.0.0.2:53']\n\
             balance = 'hash'\nhash_by = 'client'",
        );
        let mut choice = Choice::default();
        let first = choice.choose(&snapshot, "dns", client(1)).unwrap().index;
        assert!((2..200).all(|port| choice.choose(&snapshot, "dns", client(port)).unwrap().index == first));
    }

    #[test]
    fn nobody_is_chosen_who_is_not_known_to_be_well() {
        let snapshot = snapshot("[service.pool]\nservers = '10.0.0.1:53'\nhealth = { tcp = true }");
        assert!(Choice::default().choose(&snapshot, "dns", client(1)).is_none());
    }
}
