//! What the names of servers mean, kept current.
//!
//! A configuration names servers; [`keeper`] asks DNS for each name, again and again by the TTL of the answers, and the
//! [`Board`] holds what they mean now. The running configuration is filled from it as it is from fetched lists, so a name
//! that means something else is a new snapshot: health, counters and connections of addresses that stay are taken
//! over, and new addresses are probed before they get work.
//!
//! A failed lookup changes nothing: the last good addresses stay for as long as it takes.

pub mod keeper;
pub mod lookup;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::config::model::{Config, Found, ServerAt};

/// What is known of the names. Shared by who asks, who applies and who tells.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<Arc<str>, Known>>);

/// What is known of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Sorted. Empty: it has never been resolved.
    pub addresses: Vec<IpAddr>,
    /// In the place of addresses: what an SRV record names. Sorted, too.
    pub servers: Vec<Found>,
    /// Why the last lookup failed.
    pub fault: Option<String>,
}

/// A name that means something else now.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Arc<str>,
    /// Addresses; of a service, with their ports.
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    Servers(Vec<Found>),
}

impl Board {
    pub fn known(&self, name: &str) -> Option<Known> {
        self.lock().get(name).cloned()
    }

    /// Puts what the names mean now into the configuration, and tells what that changes.
    pub fn fill(&self, config: &mut Config) -> Vec<Moved> {
        let board = self.lock();
        let mut moved: Vec<Moved> = Vec::new();
        let servers = config.services.iter_mut().flat_map(|service| &mut service.servers);
        for server in servers {
            let Some(known) = server.name().and_then(|name| board.get(name)) else { continue };
            let change = match &mut server.at {
                ServerAt::Name { host, addresses, .. } if *addresses != known.addresses => {
                    let change = Moved::between(host, addresses, &known.addresses);
                    addresses.clone_from(&known.addresses);
                    change
                }
                ServerAt::Service { name, found } if *found != known.servers => {
                    let addresses = |all: &[Found]| all.iter().map(|one| one.address).collect::<Vec<_>>();
                    let change = Moved::between(name, &addresses(found), &addresses(&known.servers));
                    found.clone_from(&known.servers);
                    change
                }
                ServerAt::Address(_) | ServerAt::Name { .. } | ServerAt::Service { .. } => continue,
            };
            if !moved.contains(&change) {
                moved.push(change);
            }
        }
        moved
    }

    /// Whether the configuration says something else than what the names mean now.
    pub fn differs_from(&self, config: &Config) -> bool {
        let board = self.lock();
        config.services.iter().flat_map(|service| &service.servers).any(|server| match &server.at {
            ServerAt::Address(_) => false,
            ServerAt::Name { host, addresses, .. } => {
                board.get(host).is_some_and(|known| known.addresses != *addresses)
            }
            ServerAt::Service { name, found } => board.get(name).is_some_and(|known| known.servers != *found),
        })
    }

    /// A lookup has ended. An empty answer is no answer.
    fn looked_up(&self, name: &Arc<str>, outcome: Result<Answer, String>) {
        let mut board = self.lock();
        let known = board.entry(name.clone()).or_default();
        match outcome {
            Ok(Answer::Addresses(mut addresses)) => {
                addresses.sort_unstable();
                addresses.dedup();
                *known = Known { addresses, ..Known::default() };
            }
            Ok(Answer::Servers(mut servers)) => {
                servers.sort_unstable();
                *known = Known { servers, ..Known::default() };
            }
            Err(why) => known.fault = Some(why),
        }
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// It stands for something.
    pub fn is_resolved(&self) -> bool {
        !self.addresses.is_empty() || !self.servers.is_empty()
    }
}

impl Moved {
    fn between<A: PartialEq + ToString>(name: &Arc<str>, before: &[A], now: &[A]) -> Self {
        let lacks = |one: &[A], other: &[A]| {
            one.iter().filter(|address| !other.contains(address)).map(ToString::to_string).collect()
        };
        Self { name: name.clone(), added: lacks(now, before), removed: lacks(before, now) }
    }
}

/// `app.internal: +10.0.0.3 −10.0.0.1`
impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        self.added.iter().try_for_each(|ip| write!(f, " +{ip}"))?;
        self.removed.iter().try_for_each(|ip| write!(f, " −{ip}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn config() -> Config {
        let text = "[entrypoint.http]\nbind = '127.0.0.1:80'\n[[route]]\nservice = 'app'\n\
                    [service.app]\nservers = ['App.internal:80', '10.9.9.9:80']\n";
        config::load_text(Path::new("weir.toml"), text).unwrap().config
    }

    fn list(texts: &[&str]) -> Answer {
        Answer::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_service_brings_ports_weights_and_tiers_with_it() {
        let text = "[entrypoint.http]\nbind = '127.0.0.1:80'\n[[route]]\nservice = 'app'\n\
                    [service.app]\nservers = [{ address = 'srv:_http._tcp.App.internal', tier = 2 }]\n";
        let mut config = config::load_text(Path::new("weir.toml"), text).unwrap().config;
        let (board, name) = (Board::default(), Arc::from("srv:_http._tcp.app.internal"));
        assert_eq!(config.services[0].servers[0].name(), Some(&name));
        let found = |address: &str, weight, tier| Found { tier, address: address.parse().unwrap(), weight };
        let answer = vec![found("10.0.0.2:81", 1, 2), found("10.0.0.1:80", 5, 1)];
        board.looked_up(&name, Ok(Answer::Servers(answer)));
        assert!(board.differs_from(&config));
        assert_eq!(
            board.fill(&mut config)[0].to_string(),
            "srv:_http._tcp.app.internal: +10.0.0.1:80 +10.0.0.2:81"
        );
        assert!(!board.differs_from(&config));
        let stands_for = config.services[0].servers[0].stands_for();
        assert_eq!(
            stands_for,
            [found("10.0.0.1:80", 5, 2), found("10.0.0.2:81", 1, 3)],
            "below its own tier"
        );
        // Another weight is another answer, though no address has changed.
        board.looked_up(
            &name,
            Ok(Answer::Servers(vec![found("10.0.0.1:80", 6, 1), found("10.0.0.2:81", 1, 2)])),
        );
        assert!(board.differs_from(&config));
    }

    fn servers(config: &Config) -> Vec<String> {
        config.services[0].servers.iter().flat_map(model_addresses).collect()
    }

    fn model_addresses(server: &crate::config::model::Server) -> Vec<String> {
        server.addresses().map(|addr| addr.to_string()).collect()
    }

    #[test]
    fn all_addresses_of_a_name_are_servers_and_a_failed_lookup_changes_nothing() {
        let (board, mut config) = (Board::default(), config());
        let name: Arc<str> = "app.internal".into();
        assert_eq!(servers(&config), ["10.9.9.9:80"]);
        board.looked_up(&name, Err("no answer".into()));
        assert!(!board.differs_from(&config) && board.fill(&mut config).is_empty());

        board.looked_up(&name, Ok(list(&["10.0.0.2", "10.0.0.1", "10.0.0.2"])));
        assert!(board.differs_from(&config));
        assert_eq!(board.fill(&mut config)[0].to_string(), "app.internal: +10.0.0.1 +10.0.0.2");
        assert_eq!(servers(&config), ["10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:80"]);

        board.looked_up(&name, Err("no answer".into()));
        assert!(!board.differs_from(&config) && board.fill(&mut config).is_empty());
        assert_eq!(board.known("app.internal").unwrap().fault.as_deref(), Some("no answer"));

        board.looked_up(&name, Ok(list(&["2001:db8::1", "10.0.0.2"])));
        assert_eq!(board.fill(&mut config)[0].to_string(), "app.internal: +2001:db8::1 −10.0.0.1");
        assert_eq!(servers(&config), ["10.0.0.2:80", "[2001:db8::1]:80", "10.9.9.9:80"]);
    }
}
