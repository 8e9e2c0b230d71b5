//! `[provider.NAME]`

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, Uri};

use super::{Kubernetes, Secret};
use crate::{
    fleet::seal::FleetKeys,
    store::address::{StoreAddress, StoreTls},
    tls::certificates::ServerAuthorities,
};

/// Where documents come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    pub name: Arc<str>,
    /// Default 100.
    pub order: u32,
    pub source: ProviderSource,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ProviderSource {
    Directory(Directory),
    Http(Box<HttpSource>),
    Consul(Box<Consul>),
    ConsulCatalog(Box<ConsulCatalog>),
    Docker(Box<Docker>),
    Etcd(Box<Etcd>),
    Kubernetes(Box<Kubernetes>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    pub path: PathBuf,
    /// Default 1 min.
    pub every: Duration,
}

#[derive(Debug, Clone)]
pub struct HttpSource {
    pub url: Uri,
    /// Default 30 s.
    pub every: Duration,
    /// Default 15 s.
    pub timeout: Duration,
    /// Those that hold secrets are marked as sensitive.
    pub headers: HeaderMap,
    pub authorities: ServerAuthorities,
}

#[derive(Debug, Clone)]
pub struct Consul {
    /// Without a path.
    pub address: Uri,
    /// Without slashes at its ends.
    pub prefix: String,
    pub datacenter: Option<String>,
    pub token: Option<Secret>,
    pub authorities: ServerAuthorities,
}

/// The services of a Consul.
#[derive(Debug, Clone)]
pub struct ConsulCatalog {
    /// Without a path.
    pub address: Uri,
    /// None: the agent's own.
    pub datacenters: Vec<String>,
    /// Default true.
    pub exposed_by_default: bool,
    pub token: Option<Secret>,
    pub authorities: ServerAuthorities,
}

/// The containers of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    pub endpoint: DockerEndpoint,
    /// Only with [`DockerEndpoint::Tcp`]. Read for each connection.
    pub tls: Option<StoreTls>,
    pub network: Option<String>,
    /// Default false.
    pub exposed_by_default: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerEndpoint {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

/// A store's current generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    pub address: StoreAddress,
    /// What this host is called there: which generation is meant for it.
    pub host: Arc<str>,
    /// Whether it is this host's fleet: then it says how it is.
    pub reports: bool,
    /// Where is kept what it knew of the store.
    pub state: PathBuf,
}

/// `[fleet]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The provider whose store it is.
    pub store: Arc<str>,
    /// By default the host's name.
    pub host: Arc<str>,
    /// What seals secrets in the store. `None`: they have no place there.
    pub keys: Option<Arc<FleetKeys>>,
}

// === impl Provider ===

impl Provider {
    /// As it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.source {
            ProviderSource::Directory(_) => "directory",
            ProviderSource::Http(_) => "http",
            ProviderSource::Consul(_) => "consul",
            ProviderSource::ConsulCatalog(_) => "consul-catalog",
            ProviderSource::Docker(_) => "docker",
            ProviderSource::Etcd(_) => "etcd",
            ProviderSource::Kubernetes(_) => "kubernetes",
        }
    }
}

// === impl DockerEndpoint ===

impl std::fmt::Display for DockerEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

// === Authorities are compared by their certificates ===

impl PartialEq for HttpSource {
    fn eq(&self, other: &Self) -> bool {
        let Self { url, every, timeout, headers, authorities } = self;
        *url == other.url
            && *every == other.every
            && *timeout == other.timeout
            && *headers == other.headers
            && authorities.same_as(&other.authorities)
    }
}

impl PartialEq for Consul {
    fn eq(&self, other: &Self) -> bool {
        let Self { address, prefix, datacenter, token, authorities } = self;
        *address == other.address
            && *prefix == other.prefix
            && *datacenter == other.datacenter
            && *token == other.token
            && authorities.same_as(&other.authorities)
    }
}

impl PartialEq for ConsulCatalog {
    fn eq(&self, other: &Self) -> bool {
        let Self { address, datacenters, exposed_by_default, token, authorities } = self;
        *address == other.address
            && *datacenters == other.datacenters
            && *exposed_by_default == other.exposed_by_default
            && *token == other.token
            && authorities.same_as(&other.authorities)
    }
}
