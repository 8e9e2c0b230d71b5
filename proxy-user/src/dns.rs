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

use crate::config::model::{Config, ServerAt};

/// What is known of the names. Shared by who asks, who applies and who tells.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<Arc<str>, Known>>);

/// What is known of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Sorted. Empty: it has never been resolved.
    pub addresses: Vec<IpAddr>,
    /// Why the last lookup failed.
    pub fault: Option<String>,
}

/// A name that means something else now.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Arc<str>,
    pub added: Vec<IpAddr>,
    pub removed: Vec<IpAddr>,
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
            let ServerAt::Name { host, addresses, .. } = &mut server.at else { continue };
            let Some(known) = board.get(host).filter(|known| known.addresses != *addresses) else { continue };
            let lacks = |one: &[IpAddr], other: &[IpAddr]| -> Vec<IpAddr> {
                one.iter().filter(|ip| !other.contains(ip)).copied().collect()
            };
            let change = Moved {
                name: host.clone(),
                added: lacks(&known.addresses, addresses),
                removed: lacks(addresses, &known.addresses),
            };
            addresses.clone_from(&known.addresses);
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
        })
    }

    /// A lookup has ended. An empty answer is no answer.
    fn looked_up(&self, name: &Arc<str>, outcome: Result<Vec<IpAddr>, String>) {
        let mut board = self.lock();
        let known = board.entry(name.clone()).or_default();
        match outcome {
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                *known = Known { addresses, fault: None };
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

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
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

        board.looked_up(&name, Ok(addresses(&["10.0.0.2", "10.0.0.1", "10.0.0.2"])));
        assert!(board.differs_from(&config));
        assert_eq!(board.fill(&mut config)[0].to_string(), "app.internal: +10.0.0.1 +10.0.0.2");
        assert_eq!(servers(&config), ["10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:80"]);

        board.looked_up(&name, Err("no answer".into()));
        assert!(!board.differs_from(&config) && board.fill(&mut config).is_empty());
        assert_eq!(board.known("app.internal").unwrap().fault.as_deref(), Some("no answer"));

        board.looked_up(&name, Ok(addresses(&["2001:db8::1", "10.0.0.2"])));
        assert_eq!(board.fill(&mut config)[0].to_string(), "app.internal: +2001:db8::1 −10.0.0.1");
        assert_eq!(servers(&config), ["10.0.0.2:80", "[2001:db8::1]:80", "10.9.9.9:80"]);
    }
}
