//! The valid configuration: what `validate` makes of what was written.
//!
//! Everything here holds by construction: names resolve to indices, addresses and prefixes are parsed,
//! files that are named were read. Nothing here has a position in a file any more, and nothing here runs:
//! [`crate::snapshot`] makes the running form of it.

mod acme;
mod admin;
mod balancing;
mod carried;
mod health;
mod kubernetes;
mod limits;
mod log;
mod maintenance;
mod middleware;
mod page;
mod passthrough;
mod pool;
mod provider;
mod retry;
mod route;
mod tls;
mod tracing;
mod variants;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::{proxy_protocol, tls::certificates::ServerAuthorities};

pub use acme::{Acme, AcmeChallenge};
pub use admin::{Admin, AdminAddr, AdminTls};
pub use balancing::{
    BalanceWay, Balancing, Dns, Found, HashKey, Host, SameSite, Secret, Server, ServerAt, Sticky,
};
pub use carried::CarriedRoute;
pub use health::{Ask, BodyMatch, Breaker, DrainOn, Eject, HealthCheck, HttpCheck, Slow, Step};
pub use kubernetes::{Access, ApiServer, ApiToken, Kubernetes, PortOf};
pub use middleware::{
    BasicAuth, Compress, ForwardAuth, HeaderChanges, Headers, Middleware, MiddlewareKind, Piece, RateKey,
    RateLimit, Redirect, ReplacePath, Template,
};
pub use passthrough::{Carries, NatPorts, Offload, SourceAddress};
pub use pool::Pool;
pub use provider::{
    Consul, ConsulCatalog, Directory, Docker, DockerEndpoint, Etcd, Fleet, HttpSource, Provider,
    ProviderSource,
};
pub use retry::{Hedge, HedgeAfter, Retry};
pub use route::{Condition, HostMatch, Network, PathMatch, Pattern, Route, TextMatch};
pub use tls::{
    Alpn, CipherSuites, ClientAuth, EntrypointTls, HostTls, Need, RedirectToHttps, ServiceTls, TlsVersion,
    UnknownHost,
};

pub use limits::Limits;
pub use log::{
    AccessLog, AccessLogFormat, AccessLogTarget, Facility, Filter, Log, LogPiece, LogTemplate, Redact,
    Rotate, Syslog, SyslogFormat, Transport, Variable,
};
pub use maintenance::{Maintenance, Recurrence};
pub use page::{LivePage, Page, StatusPages};
pub use tracing::{Collector, Metrics, OtlpProtocol, ParentTrust, Tracing};
pub use variants::{Judge, MadeOf, Mirror, Split};

/// A whole configuration, valid in itself. Whether its ports are free and its interfaces exist only the host
/// can say: that is found out when it is applied.
#[derive(Debug, Clone)]
pub struct Config {
    pub kernel: Kernel,
    pub admin: Admin,
    pub log: Log,
    pub process: Process,
    pub tracing: Option<Tracing>,
    pub metrics: Option<Metrics>,
    pub shutdown: Shutdown,
    pub upgrade: Upgrade,
    pub state: StateFolder,
    /// In the order in which their documents come.
    pub providers: Vec<Provider>,
    pub fleet: Option<Fleet>,
    pub host: Host,
    pub dns: Dns,
    pub acme: Option<Acme>,
    pub allowlists: Vec<Allowlist>,
    pub entrypoints: Vec<Entrypoint>,
    pub services: Vec<Service>,
    pub pages: Vec<Page>,
    pub maintenance: Vec<Maintenance>,
    pub middleware: Vec<Middleware>,
    pub routes: Vec<Route>,
    /// The routes that carry connections untouched.
    pub carried: Vec<CarriedRoute>,
}

/// `[kernel]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Where the gate is attached. Empty: nowhere.
    pub interfaces: Vec<Arc<str>>,
    pub mode: KernelMode,
    /// Where bpffs is mounted; pins live in `weir/v2` below it. Default `/sys/fs/bpf`.
    pub bpffs: PathBuf,
    /// Where the connections to servers are watched from.
    pub cgroup: Cgroup,
    /// Default `20000-29999`.
    pub nat_ports: NatPorts,
    /// Flows that the kernel carries by port, at a time. Default 262,144.
    pub max_flows: u32,
}

/// `kernel.cgroup = "auto" | "off" | "/path"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// The one that the daemon is in; in the host's root, one made below it. The default.
    Auto,
    Off,
    /// The daemon moves there.
    At(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelMode {
    /// XDP on physical and virtio ports, tcx on veth, bridge and bond; off, loudly, where eBPF can't be had.
    Auto,
    /// XDP in the driver, or an error.
    Xdp,
    /// tcx (clsact before Linux 6.6), or an error.
    Tc,
    /// Allowlists are enforced at accept only.
    Off,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Whom a daemon that root has started goes on as, by name or number. Default: who has started it.
    pub user: Option<String>,
    /// Default: the user's own.
    pub group: Option<String>,
    /// Whether system calls and places to write are given up. Default true.
    pub sandbox: bool,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long the host drains after SIGTERM before it stops to listen. Default 0 s.
    pub delay: Duration,
    /// How long requests in flight may take after SIGTERM. Default 30 s.
    pub grace: Duration,
}

/// `[upgrade]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// How long a new binary may take until it serves. Default 30 s.
    pub ready: Duration,
    /// How long the old one's connections may go on after that. Default 1 h.
    pub drain: Duration,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder {
    /// Where Weir keeps what must outlive it. Default `/var/lib/weir`. Made when it is first needed.
    pub dir: PathBuf,
}

/// `[allowlist.NAME]`, or the built-in `cloudflare`.
#[derive(Debug, Clone)]
pub struct Allowlist {
    pub name: Arc<str>,
    /// Who is on the list: what is written and, where lists are fetched, what was fetched last; until then the floor.
    /// Deduplicated, each with no bit set behind its length.
    pub prefixes: Vec<IpNet>,
    /// What the configuration and the list's file say, in the order in which they say it. Always on the list.
    pub written: Vec<IpNet>,
    pub fetch: Option<Fetch>,
    /// Its members are a CDN's: each stands for many visitors, and what protects from a single source spares them.
    /// Default false; of the built-in `cloudflare` true.
    pub cdn: bool,
}

/// How a list keeps itself current.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub source: ListSource,
    /// From one fetch to the next, give or take a tenth. `None`: only when it is asked for. Default 12 h.
    pub refresh: Option<Duration>,
    /// For all of a fetch. Default 15 s.
    pub timeout: Duration,
    /// A list with fewer than so many percent of the last good one's prefixes is refused. Default 50.
    pub shrink_limit: u32,
    /// Whose certificates the list's server may show.
    pub authorities: ServerAuthorities,
    /// Who is on the list until a fetch succeeds for the first time.
    pub floor: Vec<IpNet>,
}

/// Where a list comes from, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSource {
    /// At least one; the list is all of them together. `https`, or `http` with a warning; each has a host.
    pub urls: Vec<http::Uri>,
    /// JSON pointers to the prefixes. Empty: text, one prefix a line.
    pub json: Vec<String>,
}

/// Index into [`Config::allowlists`]; likewise the other ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowlistId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntrypointId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MiddlewareId(pub usize);

/// `[entrypoint.NAME]`
#[derive(Debug, Clone)]
pub struct Entrypoint {
    pub name: Arc<str>,
    /// At least one; no address and port appears in two entrypoints.
    pub bind: Vec<SocketAddr>,
    /// Its addresses may come and go. Default false.
    pub floating: bool,
    /// Default `Http`. What isn't has no settings of HTTP.
    pub carries: Carries,
    /// Who may come in. Empty: anybody.
    pub allow: Vec<AllowlistId>,
    /// A rehearsal: everybody comes in, and those who otherwise wouldn't are counted. Default false; never without
    /// `allow` or `source_limit`.
    pub shadow: bool,
    /// How much each source may send, where the gate is in the kernel. Default: whatever it likes.
    pub source_limit: Option<SourceLimit>,
    pub syn_cookies: SynCookies,
    /// Where the client's address comes from when the TCP peer is not the client itself.
    pub client_ip: Option<ClientIpSource>,
    pub tls: Option<EntrypointTls>,
    /// The value of `Strict-Transport-Security`. Never without `tls`.
    pub hsts: Option<HeaderValue>,
    /// Also over UDP, at the same addresses and ports. Default false; never without `tls`.
    pub http3: bool,
    /// Never with `tls`.
    pub redirect: Option<RedirectToHttps>,
    pub limits: Limits,
    /// Who must say, with the PROXY protocol, whose connection it brings.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Goes before a route's own.
    pub middleware: Vec<MiddlewareId>,
}

/// `proxy_protocol = { from = ["balancers"], timeout = "5s" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// At least one.
    pub from: Vec<AllowlistId>,
    /// For the header. Default 5 s.
    pub timeout: Duration,
}

/// `source_limit = { connections = "50/s", packets = "20000/s", connection_burst = 100, packet_burst = 40000, cdn = false }`
///
/// A source is an IPv4 address or an IPv6 /64. At least one of the two rates is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimit {
    pub packets: Option<Rate>,
    /// TCP connections that it begins.
    pub connections: Option<Rate>,
    /// Also of a CDN's sources. Default false.
    pub cdn: bool,
}

/// `"50/s"` or `"600/m"`, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub count: u32,
    /// A second or a minute.
    pub per: Duration,
    /// Default: what two seconds bring, at least 10. 1 to 10,000,000.
    pub burst: u32,
}

/// `syn_cookies = "auto"`, `syn_cookies_from = "1000/s"`, `syn_cookies_cdn = false`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SynCookies {
    /// Default `Auto`.
    pub mode: SynCookiesMode,
    /// SYNs in a second. Default 1000.
    pub from: u32,
    /// Default false.
    pub cdn: bool,
}

impl SynCookies {
    pub const OFF: Self = Self { mode: SynCookiesMode::Off, from: 0, cdn: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SynCookiesMode {
    Auto,
    Always,
    Off,
}

/// `client_ip = { header = "CF-Connecting-IP", trust = ["cloudflare"] }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIpSource {
    pub header: HeaderName,
    pub trust: Vec<AllowlistId>,
}

/// `[service.NAME]`
#[derive(Debug, Clone)]
pub struct Service {
    pub name: Arc<str>,
    /// Each once; at least one, or none in a service that is made of others.
    pub servers: Vec<Server>,
    pub balancing: Balancing,
    pub made_of: Option<MadeOf>,
    pub tls: Option<ServiceTls>,
    pub protocol: ServerProtocol,
    /// Tells the servers with the PROXY protocol who the client is.
    pub send_proxy: Option<proxy_protocol::Version>,
    pub offload: Offload,
    pub source: SourceAddress,
    pub health: Option<HealthCheck>,
    pub eject: Option<Eject>,
    pub breaker: Option<Breaker>,
    /// In percent of the servers. Default 0: never.
    pub panic: u8,
    pub timeouts: Timeouts,
    pub pool: Pool,
    pub retry: Retry,
    /// Default: a server is asked twice only when the first one fails.
    pub hedge: Option<Hedge>,
    pub when_all_down: WhenAllDown,
    /// In the place of a server's own answers.
    pub pages: StatusPages,
}

/// `protocol = "http1" | "http2" | "auto"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerProtocol {
    Http1,
    /// Agreed on in TLS; without TLS, known beforehand.
    Http2,
    /// What the server chooses in TLS; without TLS, HTTP/1. The default.
    Auto,
}

/// `timeouts = { connect = "300ms", first_byte = "60s", unacknowledged = "30s", idle = "1h", lifetime = "24h" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Default 300 ms.
    pub connect: Duration,
    /// From the request's last byte to the response's first. Default 60 s.
    pub first_byte: Duration,
    /// TCP_USER_TIMEOUT. Default 30 s.
    pub unacknowledged: Duration,
    /// Of passthrough: without a byte in either direction. Default 1 h.
    pub idle: Duration,
    /// Of passthrough. Default none.
    pub lifetime: Option<Duration>,
}

/// `when_all_down = "page:maintenance" | "try"`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllDown {
    Page(PageId),
    /// Ask a server that is down all the same.
    Try,
}

// === impl Config ===

impl Config {
    /// Whether anything depends on who is on the list.
    #[must_use]
    pub fn refers_to(&self, list: AllowlistId) -> bool {
        self.entrypoints.iter().any(|entrypoint| entrypoint.refers_to(list))
            || self.routes.iter().any(|route| route.refers_to(list))
            || self
                .middleware
                .iter()
                .any(|one| one.kind.networks().any(|network| *network == Network::List(list)))
            || self.maintenance.iter().any(|one| one.allow.contains(&Network::List(list)))
    }
}

// === impl Route ===

impl Route {
    /// Whether the list decides which requests the route is for.
    #[must_use]
    pub fn refers_to(&self, list: AllowlistId) -> bool {
        self.when.iter().chain(&self.not).any(|condition| match condition {
            Condition::Client(networks) => networks.contains(&Network::List(list)),
            _ => false,
        })
    }
}

// === impl Entrypoint ===

impl Entrypoint {
    /// Whether the list decides who comes in here, or who is believed.
    #[must_use]
    pub fn refers_to(&self, list: AllowlistId) -> bool {
        self.allow.contains(&list)
            || self.client_ip.as_ref().is_some_and(|source| source.trust.contains(&list))
            || self.proxy_protocol.as_ref().is_some_and(|proxies| proxies.from.contains(&list))
    }
}

// === impl Fetch ===

impl Fetch {
    /// Whether both would do the same. Authorities are compared by their certificates.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.authorities.same_as(&other.authorities)
            && self.source == other.source
            && self.refresh == other.refresh
            && self.timeout == other.timeout
            && self.shrink_limit == other.shrink_limit
            && self.floor == other.floor
    }
}
