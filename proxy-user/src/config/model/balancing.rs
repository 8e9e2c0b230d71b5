//! How a service's work is spread over its servers.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::HeaderName;

use crate::config::default;

/// One of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub at: ServerAt,
    /// Default 1; 1 to 256.
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    /// Default 1; 1 to 16.
    pub tier: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAt {
    Address(SocketAddr),
    Name {
        /// In lower case; a last dot means that no search list applies.
        host: Arc<str>,
        port: u16,
        /// What the name means now, sorted; empty until it is known.
        addresses: Vec<IpAddr>,
    },
    /// `srv:_https._tcp.app.example.com`: what DNS has for a service.
    Service {
        /// As it is written, in lower case: with `srv:` in front no host can be called so.
        name: Arc<str>,
        /// What that is now, sorted; empty until it is known.
        found: Vec<Found>,
    },
}

/// A server that an SRV record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// 1 for the lowest priority that there is, and so on.
    pub tier: u32,
    pub address: SocketAddr,
    /// 1 to 256.
    pub weight: u32,
}

/// Tiers go from 1 to this.
const MOST_TIERS: u32 = 16;

/// `balance`, `hash_by`, `hash_bound`, `sticky`, `slow_start`, `tier_spill`, `zone_spill`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// Default `RoundRobin`.
    pub way: BalanceWay,
    pub sticky: Option<Sticky>,
    /// Default 0: at once.
    pub slow_start: Duration,
    /// In percent of the weight of the tiers so far. Default 0: while none of it is left.
    pub tier_spill: u32,
    /// In percent of the own zone's weight. Default 50.
    pub zone_spill: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BalanceWay {
    RoundRobin,
    LeastRequests,
    Latency,
    Hash {
        by: HashKey,
        /// In percent of a fair share, 105 to 1000; `None`: nobody counts.
        bound: Option<u32>,
    },
}

/// `hash_by = "client" | "path" | "header:NAME" | "cookie:NAME" | "query:NAME"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Client,
    Path,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
}

/// `sticky = "cookie"`, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// A token. Default `weir-` and the service's name.
    pub name: Box<str>,
    /// In whole seconds. Default: none, until the browser is closed.
    pub max_age: Option<Duration>,
    /// Default: as the client came.
    pub secure: Option<bool>,
    /// Default true.
    pub http_only: bool,
    /// Default `Lax`.
    pub same_site: SameSite,
    /// Visible, without `;`. Default `/`.
    pub path: Box<str>,
    /// Default true.
    pub keep_drained: bool,
    /// Default: the host's own, in the state folder.
    pub key: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// The content of a `key_file`. Isn't shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub Arc<[u8]>);

/// `[host]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub zone: Option<Arc<str>>,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// Default 5 s.
    pub min_ttl: Duration,
    /// Default 5 min; not less than `min_ttl`.
    pub max_ttl: Duration,
    /// Default 2 s.
    pub timeout: Duration,
}

// === impl Balancing ===

impl Default for Balancing {
    fn default() -> Self {
        Self {
            way: BalanceWay::RoundRobin,
            sticky: None,
            slow_start: Duration::ZERO,
            tier_spill: default::TIER_SPILL,
            zone_spill: default::ZONE_SPILL,
        }
    }
}

// === impl Server ===

impl Server {
    /// All that it stands for now.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.stands_for().into_iter().map(|found| found.address)
    }

    /// Likewise, with the weight and the tier that each has.
    pub fn stands_for(&self) -> Vec<Found> {
        let one = |address| Found { tier: self.tier, address, weight: self.weight };
        match &self.at {
            ServerAt::Address(address) => vec![one(*address)],
            ServerAt::Name { port, addresses, .. } => {
                addresses.iter().map(|ip| one(SocketAddr::new(*ip, *port))).collect()
            }
            ServerAt::Service { found, .. } => {
                let below =
                    |one: &Found| Found { tier: (self.tier + one.tier - 1).min(MOST_TIERS), ..one.clone() };
                found.iter().map(below).collect()
            }
        }
    }

    /// Its name, where it has one.
    pub fn name(&self) -> Option<&Arc<str>> {
        match &self.at {
            ServerAt::Address(_) => None,
            ServerAt::Name { host, .. } => Some(host),
            ServerAt::Service { name, .. } => Some(name),
        }
    }
}

/// As it is written, with what differs from the defaults.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            ServerAt::Address(address) => address.fmt(f)?,
            ServerAt::Name { host, port, .. } => write!(f, "{host}:{port}")?,
            ServerAt::Service { name, .. } => f.write_str(name)?,
        }
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        if let Some(zone) = &self.zone {
            write!(f, " zone {zone}")?;
        }
        if self.tier != 1 {
            write!(f, " tier {}", self.tier)?;
        }
        Ok(())
    }
}

// === impl BalanceWay ===

/// As it is written.
impl fmt::Display for BalanceWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("round_robin"),
            Self::LeastRequests => f.write_str("least_requests"),
            Self::Latency => f.write_str("latency"),
            Self::Hash { by, .. } => write!(f, "hash by {by}"),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl SameSite {
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}
