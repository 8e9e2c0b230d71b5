//! What a daemon leaves to its successor: what is listened on, and what is known that isn't on the disk.
//!
//! Drains, maintenance, blocks, the weights of splits and lists are on the disk before they hold, so a successor reads them there.
//! Not left: how much clients have used up of rate limits, and who is connected; both begin anew.

use std::{fs::File, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};

use super::{
    counters::{self, Counts},
    sockets::Sockets,
};
use crate::{
    clock::Moment,
    connection::http3::steering::{Elder, Epoch},
    health::{breaker, handed},
    snapshot::Snapshot,
    tls::{client::Policy, quic, tickets},
};

/// As it is told. A successor of another release finds what both know, and nothing in the place of the rest.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Estate {
    /// What the descriptors beside it are, in their order.
    pub descriptors: Vec<What>,
    /// Of the configuration that ran last.
    pub generation: u64,
    #[serde(default)]
    pub servers: Vec<KnownServer>,
    #[serde(default)]
    pub breakers: Vec<KnownBreaker>,
    #[serde(default)]
    pub counts: Counts,
    #[serde(default)]
    pub tickets: Vec<KnownTickets>,
    /// What QUIC's tokens are sealed with, by which clients show that they are where they say.
    #[serde(default)]
    pub token_secret: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// It listens, or takes datagrams.
    Socket,
    /// To a process that has connections at the socket before it.
    Tunnel { epoch: Epoch },
    /// What keeps others from the pins.
    Lock,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct KnownServer {
    pub service: String,
    /// As logs spell it.
    pub server: String,
    pub health: handed::Known,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct KnownBreaker {
    pub service: String,
    pub breaker: breaker::Told,
}

/// The keys of session tickets of one set of rules. Another release may tell rules apart in another way: then clients make a whole
/// handshake.
#[derive(Debug, Serialize, Deserialize)]
pub struct KnownTickets {
    pub entrypoint: String,
    pub policy: Policy,
    pub keys: Vec<tickets::Told>,
}

/// What a daemon begins with: of a predecessor, of the service manager, or nothing.
#[derive(Debug, Default)]
pub struct Inherited {
    pub sockets: Sockets,
    pub lock: Option<File>,
    pub estate: Option<Estate>,
}

// === impl Estate ===

impl Estate {
    /// What is known now.
    pub fn of(snapshot: &Snapshot) -> Self {
        let now = Moment::now();
        let servers = snapshot.services.iter().flat_map(|service| {
            service.servers.iter().map(|server| KnownServer {
                service: service.name.to_string(),
                server: server.label.to_string(),
                health: server.health.told(now),
            })
        });
        let breakers = snapshot.services.iter().filter_map(|service| {
            let breaker = service.breaker.as_ref()?.told(now)?;
            Some(KnownBreaker { service: service.name.to_string(), breaker })
        });
        let tickets = snapshot.entrypoints.iter().flat_map(|entrypoint| {
            let rules = entrypoint.tls.iter().flat_map(|tls| tls.all_rules());
            rules.map(|rules| KnownTickets {
                entrypoint: entrypoint.name.to_string(),
                policy: rules.policy,
                keys: rules.tickets.told(),
            })
        });
        Self {
            descriptors: Vec::new(),
            generation: snapshot.generation,
            servers: servers.collect(),
            breakers: breakers.collect(),
            counts: counters::read(snapshot),
            tickets: tickets.collect(),
            token_secret: quic::token_secret().to_vec(),
        }
    }

    /// Has a snapshot that nobody uses yet go on with what is known.
    pub fn resume(self, snapshot: &mut Snapshot) {
        let now = Moment::now();
        snapshot.generation = self.generation + 1;
        let service = |name: &str| snapshot.services.iter().find(|service| *service.name == *name);
        for known in self.servers {
            let servers = service(&known.service).map(|service| &service.servers);
            let server = servers.into_iter().flatten().find(|server| *server.label == *known.server);
            if let Some(server) = server {
                server.health.resume(known.health, now);
            }
        }
        for known in self.breakers {
            if let Some(breaker) = service(&known.service).and_then(|service| service.breaker.as_ref()) {
                breaker.resume(known.breaker, now);
            }
        }
        for known in self.tickets {
            let entrypoint = snapshot.entrypoints.iter().find(|one| *one.name == *known.entrypoint);
            let rules =
                entrypoint.and_then(|one| one.tls.as_ref()).into_iter().flat_map(|tls| tls.all_rules());
            for rules in rules.filter(|rules| rules.policy == known.policy) {
                rules.tickets.resume(&known.keys);
            }
        }
        counters::add(snapshot, &self.counts);
    }
}

// === impl Inherited ===

impl Inherited {
    /// The same once more. What can't be had twice is missing.
    pub fn spare(&self) -> Self {
        // What can be told can be understood: it came that way.
        let again = |estate: &Estate| serde_json::from_slice(&serde_json::to_vec(estate).ok()?).ok();
        Self {
            sockets: self.sockets.spare(),
            lock: self.lock.as_ref().and_then(|lock| lock.try_clone().ok()),
            estate: self.estate.as_ref().and_then(again),
        }
    }

    /// Of an estate, with the descriptors that came beside it.
    pub fn of(estate: Estate, beside: Vec<OwnedFd>) -> Self {
        let (mut all, mut lock) = (Vec::<(OwnedFd, Vec<Elder>)>::new(), None);
        for (what, descriptor) in estate.descriptors.iter().zip(beside) {
            match *what {
                What::Socket => all.push((descriptor, Vec::new())),
                What::Tunnel { epoch } => {
                    if let Some((_, elders)) = all.last_mut() {
                        elders.push(Elder { epoch, tunnel: descriptor });
                    }
                }
                What::Lock => lock = Some(descriptor.into()),
                What::Unknown => {}
            }
        }
        let mut sockets = Sockets::default();
        for (socket, elders) in all {
            sockets.add(socket, elders);
        }
        Self { sockets, lock, estate: Some(estate) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{acme::Board, config, health::Status};

    fn snapshot(servers: &str) -> Snapshot {
        let text = format!(
            "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\nservers = [{servers}]\nhealth = {{ path = '/' }}\n\
             breaker = {{ errors = '50%' }}\n[[route]]\nservice = 'app'\n"
        );
        let loaded =
            config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
        Snapshot::new(loaded.config.into(), &Board::default().into(), None).unwrap()
    }

    #[test]
    fn a_successor_knows_who_is_well_and_counts_on_from_there() {
        let before = snapshot("'127.0.0.1:1', '127.0.0.1:2'");
        before.services[0].servers[0].health.change(Status::Up, false, "an answer".into());
        before.services[0].servers[1].health.change(Status::Down, false, "refused".into());
        before.entrypoints[0].counters.requests.store(9, std::sync::atomic::Ordering::Relaxed);
        let text = serde_json::to_string(&Estate::of(&before)).unwrap();

        let mut after = snapshot("'127.0.0.1:2', '127.0.0.1:3'");
        let estate: Estate = serde_json::from_str(&text).unwrap();
        estate.resume(&mut after);
        assert_eq!(after.generation, before.generation + 1);
        let verdicts: Vec<_> =
            after.services[0].servers.iter().map(|server| server.health.verdict()).collect();
        assert_eq!(verdicts, [Status::Down, Status::Starting]);
        assert_eq!(counters::read(&after), counters::read(&before));
    }

    #[test]
    fn what_another_release_leaves_beside_is_let_go() {
        let text = r#"{"descriptors":[{"what":"socket"},{"what":"crown","of":1},{"what":"lock"}],"generation":3,"gold":[]}"#;
        let estate: Estate = serde_json::from_str(text).unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let mut inherited = Inherited::of(estate, vec![socket.into(), file(), file()]);
        assert!(inherited.sockets.take_tcp(at).is_some() && inherited.lock.is_some());
    }
}
