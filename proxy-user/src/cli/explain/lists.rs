//! Which list and prefix it is by. The kernel holds membership only; the daemon has the lists, and where none answers,
//! the configuration and what was kept of fetched lists.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::ExplainArgs;
use crate::{
    admin::status::{StatusDocument, allowlists::AllowlistsDocument},
    allowlists::Board,
    config::{self, model::Config},
    providers::asked,
};

/// The allowlists, and who allows which.
#[derive(Debug, Default)]
pub struct Lists {
    origin: String,
    lists: Vec<(String, Vec<IpNet>)>,
    /// By the names of entrypoints.
    allows: Vec<(String, Vec<String>)>,
}

/// What the lists say of a source that wants in at an entrypoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Because {
    /// The lists that the entrypoint allows.
    pub allows: Vec<String>,
    /// What lets the source in.
    pub decided: Option<Listed>,
    /// If nothing does: the allowed prefixes next to it, below and above.
    pub nearest: Vec<Listed>,
    /// And what other lists have it.
    pub elsewhere: Vec<Listed>,
}

/// A prefix and the list that it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub prefix: IpNet,
    pub list: String,
}

// === impl Lists ===

impl Lists {
    /// From the daemon, else from the configuration.
    ///
    /// # Errors
    /// A sentence about why there are none.
    pub fn learn(args: &ExplainArgs) -> Result<Self, String> {
        if let Some(lists) = Self::of_daemon(args) {
            return Ok(lists);
        }
        let path = args.config().display();
        let config = load(args).map_err(|_| {
            format!("no daemon answers (`--admin`), and {path} is no valid configuration (`--config`)")
        })?;
        Ok(Self::of_config(&config, format!("{path}, since no daemon answers")))
    }

    fn of_daemon(args: &ExplainArgs) -> Option<Self> {
        let get = |path| {
            let (status, body) = args.admin.get(path).ok()?;
            status.is_success().then_some(body)
        };
        let document: AllowlistsDocument =
            serde_json::from_slice(&get("/api/v1/allowlists?prefixes=true")?).ok()?;
        let status: StatusDocument = serde_json::from_slice(&get("/api/v1/status")?).ok()?;
        let lists = document.allowlists.into_iter().map(|list| {
            let prefixes = list.prefixes.unwrap_or_default();
            (list.name, prefixes.iter().filter_map(|prefix| prefix.parse().ok()).collect())
        });
        Some(Self {
            origin: format!("the running daemon, generation {}", document.generation),
            lists: lists.collect(),
            allows: status.entrypoints.into_iter().map(|one| (one.name, one.allow)).collect(),
        })
    }

    fn of_config(config: &Config, origin: String) -> Self {
        let lists = config.allowlists.iter().map(|list| (list.name.to_string(), list.prefixes.clone()));
        let allows = config.entrypoints.iter().map(|entrypoint| {
            let allow = entrypoint.allow.iter().map(|list| config.allowlists[list.0].name.to_string());
            (entrypoint.name.to_string(), allow.collect())
        });
        Self { origin, lists: lists.collect(), allows: allows.collect() }
    }

    /// Where they were learnt.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `None`: no such entrypoint is known here.
    pub fn because(&self, entrypoint: &str, source: IpAddr) -> Option<Because> {
        let (_, allows) = self.allows.iter().find(|(name, _)| name == entrypoint)?;
        let allowed = || self.members().filter(|(list, _)| allows.iter().any(|name| name == list));
        let decided = longest(allowed(), source);
        let (nearest, elsewhere) = if decided.is_some() {
            (Vec::new(), Vec::new())
        } else {
            let others = self.lists.iter().filter(|(name, _)| !allows.contains(name));
            let having = others.filter_map(|(name, prefixes)| {
                longest(prefixes.iter().map(|prefix| (&**name, *prefix)), source)
            });
            (nearest(allowed(), source), having.collect())
        };
        Some(Because { allows: allows.clone(), decided, nearest, elsewhere })
    }

    fn members(&self) -> impl Iterator<Item = (&str, IpNet)> + Clone {
        self.lists.iter().flat_map(|(name, prefixes)| prefixes.iter().map(move |prefix| (&**name, *prefix)))
    }
}

/// The configuration that the arguments name, with what was fetched last for its lists.
pub fn load(args: &ExplainArgs) -> Result<Config, config::Report> {
    let mut config = asked::offline(args.config())?.config;
    Board::default().fill(&mut config);
    Ok(config)
}

/// The narrowest prefix that has the address.
fn longest<'a>(members: impl Iterator<Item = (&'a str, IpNet)>, address: IpAddr) -> Option<Listed> {
    let having = members.filter(|(_, prefix)| prefix.contains(&address));
    having.max_by_key(|(_, prefix)| prefix.prefix_len()).map(listed)
}

/// The prefixes right below and right above an address that none of them has.
fn nearest<'a>(members: impl Iterator<Item = (&'a str, IpNet)> + Clone, address: IpAddr) -> Vec<Listed> {
    let family = members.filter(move |(_, prefix)| prefix.addr().is_ipv4() == address.is_ipv4());
    let below = family.clone().filter(|(_, prefix)| prefix.broadcast() < address);
    let above = family.filter(|(_, prefix)| prefix.network() > address);
    let below = below.max_by_key(|(_, prefix)| prefix.broadcast());
    let above = above.min_by_key(|(_, prefix)| prefix.network());
    below.into_iter().chain(above).map(listed).collect()
}

fn listed((list, prefix): (&str, IpNet)) -> Listed {
    Listed { prefix, list: list.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        let list = |name: &str, prefixes: &[&str]| {
            (name.to_owned(), prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect())
        };
        Lists {
            origin: String::new(),
            lists: vec![
                list("cdn", &["10.0.0.0/8", "10.1.0.0/16", "198.51.100.0/24", "2001:db8::/32"]),
                list("office", &["203.0.113.0/24"]),
            ],
            allows: vec![("https".into(), vec!["cdn".into()])],
        }
    }

    fn because(source: &str) -> Because {
        lists().because("https", source.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_narrowest_prefix_is_what_lets_in() {
        let expected = Listed { prefix: "10.1.0.0/16".parse().unwrap(), list: "cdn".into() };
        assert_eq!(because("10.1.2.3").decided, Some(expected));
    }

    #[test]
    fn a_stranger_is_told_its_neighbours_and_where_else_it_is_listed() {
        let because = because("203.0.113.9");
        assert_eq!(because.decided, None);
        let nearest: Vec<_> = because.nearest.iter().map(|listed| listed.prefix.to_string()).collect();
        assert_eq!(nearest, ["198.51.100.0/24"]);
        assert_eq!((because.elsewhere.len(), &*because.elsewhere[0].list), (1, "office"));
    }

    #[test]
    fn neighbours_are_on_both_sides_and_of_the_same_family() {
        let nearest: Vec<_> =
            because("192.0.2.1").nearest.iter().map(|listed| listed.prefix.to_string()).collect();
        assert_eq!(nearest, ["10.0.0.0/8", "198.51.100.0/24"]);
        assert_eq!(because("2001:db9::1").nearest.len(), 1);
    }

    #[test]
    fn an_entrypoint_that_is_not_known_has_no_reasons() {
        assert_eq!(lists().because("smtp", "10.0.0.1".parse().unwrap()), None);
    }
}
