//! The configuration as it is written: the shape of the TOML, with the place of everything that may be wrong.
//!
//! The doc comments here are what operators read: the schema and the reference are generated from them. Nothing is
//! required by these types, and hardly anything is parsed: that is for [`super::validate`], which can say what is
//! missing better than serde, and go on to the next fault.

mod acme;
mod admin;
mod balancing;
mod health;
mod limits;
mod log;
mod maintenance;
mod middleware;
mod page;
mod passthrough;
mod pattern;
mod pool;
mod process;
mod provider;
mod retry;
mod route;
mod tls;
mod metrics;
mod tracing;
mod value;
mod variants;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use acme::{Acme, AcmeChallenge};
pub use admin::{Admin, AdminTls};
pub use balancing::{Balance, Dns, Host, SameSite, Server, Servers, Short, Sticky, TextOrTable};
pub use health::{Breaker, Eject, Health};
pub use limits::Limits;
pub use log::{AccessLog, Facility, KernelLog, Level, Log, Redact, Syslog, SyslogFormat};
pub use maintenance::{Maintenance, Weekly};
pub use metrics::Metrics;
pub use middleware::{
    BasicAuth, Clients, Compress, ForwardAuth, HeaderChanges, Headers, Link, Links, Middleware, RateLimit,
    Redirect, ReplacePath, RouteTimeouts,
};
pub use page::{Page, StatusPages};
pub use passthrough::{Offload, Protocol, Source};
pub use pattern::{HostPatterns, PathPatterns, Pattern, PatternKind, TextPattern};
pub use pool::Pool;
pub use process::Process;
pub use provider::{Fleet, Provider, ProviderKind, StoreTls};
pub use retry::{Hedge, Retry};
pub use route::Route;
pub use tls::{CipherSuites, ClientAuth, EntrypointTls, HostTls, Hsts, ServiceTls, TlsVersion, UnknownHost};
pub use tracing::{OtlpProtocol, Parent, Tracing};
pub use value::{At, List};
pub use variants::{Judge, Mirror};

use super::default;

/// A named section's name, with the place where it stands.
pub type Name = At<String>;

/// Weir's configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The kernel side: where the gate is attached, and how.
    pub kernel: Option<At<Kernel>>,
    /// The admin interface: state, health and control, for `weir status` and for machines.
    pub admin: Option<At<Admin>>,
    /// What is written down about requests, and how much the daemon says of itself. `docs/logs.md` tells of it.
    pub log: Option<At<Log>>,
    /// As whom the daemon runs, and what it gives up when it has started. `docs/security.md` tells of it.
    pub process: Option<At<Process>>,
    /// More access logs, each with its own place, format, filter and sampling. With one of them, `log.access` is `off`
    /// unless it is written.
    #[serde(default)]
    pub access_log: BTreeMap<Name, At<AccessLog>>,
    /// Spans of requests, sent to a collector by OTLP. Without this section nothing is traced, and a client's `traceparent`
    /// is passed on as it came.
    pub tracing: Option<At<Tracing>>,
    /// Pushes everything that `/metrics` tells to a collector, by OTLP. Without this section metrics are only scraped.
    /// `docs/metrics.md` tells of both.
    pub metrics: Option<At<Metrics>>,
    /// How the daemon ends.
    pub shutdown: Option<At<Shutdown>>,
    /// How the daemon gives way to another binary (`weir upgrade`, SIGUSR2). `docs/upgrading.md` tells of it.
    pub upgrade: Option<At<Upgrade>>,
    /// What must outlive the daemon: the last good state of lists that are fetched.
    pub state: Option<At<State>>,
    /// Where further configuration comes from, beside this file or folder. `docs/providers.md` tells of them.
    #[serde(default)]
    pub provider: BTreeMap<Name, At<Provider>>,
    /// This host's part in a fleet. `docs/fleet.md` tells of it.
    pub fleet: Option<At<Fleet>>,
    /// This host itself.
    pub host: Option<At<Host>>,
    /// How names of servers are resolved. `docs/balancing.md` tells of them.
    pub dns: Option<At<Dns>>,
    /// The authority that certificates are ordered from, for entrypoints with `tls = { acme = … }`. `docs/tls.md` says how.
    pub acme: Option<At<Acme>>,
    /// Named sets of address prefixes. `cloudflare` is built in: the ranges that Cloudflare publishes, kept current
    /// by fetching them. `[allowlist.cloudflare]` with other keys than `prefixes` and `file` changes how it is
    /// fetched; with one of those two it replaces the built-in ranges. `docs/allowlists.md` says how lists keep current.
    #[serde(default)]
    pub allowlist: BTreeMap<Name, At<Allowlist>>,
    /// Where Weir listens: at least one.
    #[serde(default)]
    pub entrypoint: BTreeMap<Name, At<Entrypoint>>,
    /// Sets of servers that requests are sent to.
    #[serde(default)]
    pub service: BTreeMap<Name, At<Service>>,
    /// Responses that Weir serves itself. Two are built in, and replaced by what is written under their name: `maintenance`,
    /// for when no server answers, and `error`, for what Weir itself refuses. `docs/pages.md` shows them.
    #[serde(default)]
    pub page: BTreeMap<Name, At<Page>>,
    /// When a page stands in the servers' place, by the calendar. What `weir maintenance` orders goes before it; of these, the
    /// first that holds.
    #[serde(default)]
    pub maintenance: Vec<At<Maintenance>>,
    /// What is done to requests and responses on their way. Routes and entrypoints name them in `middleware`.
    #[serde(default)]
    pub middleware: BTreeMap<Name, At<Middleware>>,
    /// Which requests lead where. Of the routes that match a request the most specific one wins: an exact host before a
    /// wildcard before a regular expression before none, then the path, then the number of other conditions.
    /// `docs/routing.md` has the whole order.
    #[serde(default)]
    pub route: Vec<At<Route>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The network interfaces to which the gate is attached. Without any, nothing is attached, and allowlists are
    /// enforced when connections are accepted.
    #[schemars(extend("default" = []), example = ["eth0"])]
    pub interfaces: Option<List>,
    /// How the gate is attached.
    #[schemars(extend("default" = "auto"))]
    pub mode: Option<At<KernelMode>>,
    /// Where the BPF file system is mounted: an absolute path. Weir's pins live in `weir/v2` below it.
    #[schemars(extend("default" = default::BPFFS))]
    pub bpffs: Option<At<String>>,
    /// From which control group (cgroup2) the kernel watches the daemon's connections to servers, so that a vanished host is
    /// suspected with the first segment that it doesn't acknowledge: `auto` is the one that the daemon is in, unless that
    /// is the host's root; there the daemon moves to `weir` below it, which it makes. `off`: none. A path is a group that
    /// the daemon moves to; it is made if need be. Nothing is watched with `mode = "off"`.
    #[schemars(extend("default" = default::CGROUP), example = "/sys/fs/cgroup/edge/weir")]
    pub cgroup: Option<At<String>>,
    /// The ports that connections and datagrams come from which the kernel carries to servers (passthrough): `FIRST-LAST`,
    /// within 1024 to 65535, at least 256 ports. Each server's connections have all of them to themselves, and one that a
    /// server closed is used again after a minute. The range must hold no port that an entrypoint listens on, and none
    /// that the host takes for connections of its own: `net.ipv4.ip_local_port_range` (32768-60999 unless changed), except
    /// for those in `net.ipv4.ip_local_reserved_ports`. The last quarter is for connections that are handed over by name
    /// (`offload = "splice-kernel"`), the rest for passthrough by port.
    #[schemars(extend("default" = default::NAT_PORTS), example = "10000-31999")]
    pub nat_ports: Option<At<String>>,
    /// How many flows the kernel carries at a time by port (passthrough), 1024 to 4194304. One that its server closed first counts for a
    /// minute longer. A flow takes about half a kilobyte of the kernel's memory while it is there, and each that there could be
    /// 32 bytes. The table is made once: where it is there in another size, it keeps that, and the log says so, until
    /// `weir kernel unload` has removed it (which ends all flows).
    #[schemars(range(min = 1024, max = 4_194_304), extend("default" = default::MAX_FLOWS))]
    pub max_flows: Option<At<i64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KernelMode {
    /// XDP on physical and virtio interfaces, tcx on veth, bridge and bond. Where eBPF can't be had, off, loudly.
    Auto,
    /// XDP in the driver, or Weir doesn't start.
    Xdp,
    /// tcx (clsact before Linux 6.6), or Weir doesn't start.
    Tc,
    /// No eBPF: allowlists are enforced only when connections are accepted.
    Off,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long the host drains after SIGTERM before it stops to listen: `/ping` fails and `/ready` says why, and whoever comes all
    /// the same is served. As long as load balancers and DNS take to notice. A second SIGTERM cuts it short. A duration, 0s to 10m.
    #[schemars(extend("default" = default::SHUTDOWN_DELAY))]
    pub delay: Option<At<String>>,
    /// How long requests in flight may take after SIGTERM before they are cut off: a duration, 0s to 1h.
    #[schemars(extend("default" = default::GRACE))]
    pub grace: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// How long a new binary may take until it serves, from its start on; otherwise the old one goes on: a duration, 1s to 5m.
    #[schemars(extend("default" = default::UPGRADE_READY))]
    pub ready: Option<At<String>>,
    /// How long connections of the old one may go on when the new one serves, before they are cut off: downloads, WebSockets,
    /// connections that are relayed. Requests on kept connections are led over long before. A duration, 0s to 7d.
    #[schemars(extend("default" = default::UPGRADE_DRAIN))]
    pub drain: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The folder: an absolute path. It is made when it is first needed; where it can't be written, Weir warns and
    /// goes on, and begins with what is built in or written after the next start.
    #[schemars(extend("default" = default::STATE))]
    pub dir: Option<At<String>>,
}

/// A named set of prefixes. At least one of `prefixes`, `file` and `url`; all that are there count together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allowlist {
    /// Prefixes such as `198.51.100.0/24` or `2001:db8::/32`; a plain address means that one host.
    #[schemars(example = ["198.51.100.0/24", "2001:db8::/32"])]
    pub prefixes: Option<List>,
    /// A file with one prefix a line; `#` begins a comment. It is watched like the configuration itself.
    #[schemars(example = "office.txt")]
    pub file: Option<At<String>>,
    /// Where the list is fetched from, while the daemon runs: `https://…`. Several make one list together. A fetch that
    /// fails, or brings something doubtful, changes nothing: the last good list stays in force, also over a restart.
    #[schemars(example = ["https://lists.example.com/v4.txt", "https://lists.example.com/v6.txt"])]
    pub url: Option<List>,
    /// Where in a JSON document the prefixes stand: JSON pointers to strings or lists of strings, where `*` is every
    /// element of a list. Without it the document is text, one prefix a line; `#` begins a comment.
    #[schemars(example = ["/result/ipv4_cidrs", "/prefixes/*/ipv4Prefix"])]
    pub json: Option<List>,
    /// From one fetch to the next, give or take a tenth: a duration, 1s to 720h; or `off`, to fetch only when
    /// `weir allowlist refresh` asks for it.
    #[schemars(extend("default" = default::LIST_REFRESH))]
    pub refresh: Option<At<String>>,
    /// How long a whole fetch may take: a duration, 100ms to 1m.
    #[schemars(extend("default" = default::LIST_TIMEOUT))]
    pub timeout: Option<At<String>>,
    /// A fetched list is refused when it has fewer than so many percent of the last good one's IPv4 or IPv6 prefixes.
    /// With 0 it may shrink as it likes; an empty one is refused all the same.
    #[schemars(range(min = 0, max = 100), extend("default" = default::LIST_SHRINK_LIMIT))]
    pub shrink_limit: Option<At<i64>>,
    /// A PEM file of the authorities to trust for `url`. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/lists-ca.pem")]
    pub ca: Option<At<String>>,
    /// Its members are a CDN's, so that many visitors share each address: what protects from a single source
    /// (`source_limit`, `weir block`) spares them unless it is asked not to. Without the key: true for `cloudflare`, false
    /// for any other list.
    pub cdn: Option<At<bool>>,
}

/// An address and port that Weir listens on, and who may come in there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entrypoint {
    /// Addresses to listen on, as `ADDRESS:PORT`; `0.0.0.0` and `[::]` are all addresses of their family.
    #[schemars(required, example = ["0.0.0.0:443", "[::]:443"])]
    pub bind: Option<List>,
    /// Listens also on addresses of `bind` that this host doesn't have yet: something else (keepalived, say) brings them and
    /// takes them away. Without it, an address that isn't the host's is a fault. `docs/pairs.md` tells of it.
    #[schemars(extend("default" = false))]
    pub floating: Option<At<bool>>,
    /// What is carried here. `tcp` and `udp` entrypoints take passthrough routes only, and neither `tls` nor any setting of
    /// HTTP: who may come in is all that is said of them. `docs/passthrough.md` tells of them.
    #[schemars(extend("default" = "http"))]
    pub protocol: Option<At<Protocol>>,
    /// The allowlists whose members may come in; everybody else's packets are dropped, in the kernel where the gate is
    /// attached. Without this key anybody may come in who isn't blocked (`weir block`).
    #[schemars(example = ["cloudflare"])]
    pub allow: Option<List>,
    /// Try `allow`, `source_limit` and blocks out: everybody is judged by them and nobody is turned away. Whoever would be is counted by reason and
    /// by where it came from, and `weir status` shows it.
    #[schemars(extend("default" = false))]
    pub shadow: Option<At<bool>>,
    /// How much each source may send to this entrypoint: an IPv4 address or an IPv6 /64. What is too much is dropped by
    /// the gate. Without this key a source may send what it likes. `docs/protection.md` says more.
    pub source_limit: Option<At<SourceLimit>>,
    /// Whether the gate answers SYNs itself, with a cookie and without remembering them: the listener gets to see only
    /// those who come back with it. Where the gate is attached at XDP, and for who may come in there. The listener's own
    /// cookies are not touched by this.
    #[schemars(extend("default" = "auto"))]
    pub syn_cookies: Option<At<SynCookies>>,
    /// With `syn_cookies = "auto"`: from so many SYNs a second on to this entrypoint, over all of its addresses: `1/s` to
    /// `1000000/s`. It goes on for 10 s after they have become fewer.
    #[schemars(extend("default" = default::SYN_COOKIES_FROM))]
    pub syn_cookies_from: Option<At<String>>,
    /// Also for SYNs from the addresses of allowlists with `cdn = true`. Without it, these are passed on as they come.
    #[schemars(extend("default" = false))]
    pub syn_cookies_cdn: Option<At<bool>>,
    /// Where the client's address is found when the TCP peer is only a messenger.
    pub client_ip: Option<At<ClientIp>>,
    /// Makes this an HTTPS entrypoint.
    pub tls: Option<At<EntrypointTls>>,
    /// Tells browsers to come back over HTTPS only (`Strict-Transport-Security`). Only with `tls`; a server's own field
    /// gives way to it.
    pub hsts: Option<At<Hsts>>,
    /// Serves HTTP/3 too: the same addresses and ports over UDP, told to clients by `Alt-Svc`. Only with `tls`, whose
    /// settings hold there as well, and always with TLS 1.3. A firewall before Weir must let UDP through to these ports.
    #[schemars(extend("default" = false))]
    pub http3: Option<At<bool>>,
    /// Sends every request on to HTTPS: `https`, or `https:8443` where that isn't at port 443. Only without `tls`.
    /// Challenges of `[acme]` are answered all the same.
    #[schemars(example = &"https")]
    pub redirect: Option<At<String>>,
    /// With which status `redirect` does so: 308 keeps the method and body, 301 is for very old clients.
    #[schemars(range(min = 301, max = 308), extend("default" = default::REDIRECT_STATUS))]
    pub redirect_status: Option<At<i64>>,
    /// Paths, with all that is below them, that `redirect` leaves alone: their requests take their routes. For health
    /// checks of a load balancer, say.
    #[schemars(example = ["/health"])]
    pub redirect_except: Option<List>,
    /// What a client may send at most, and how long it may take.
    pub limits: Option<At<Limits>>,
    /// For entrypoints behind a TCP proxy or load balancer that tells, with the PROXY protocol (version 1 or 2), whose
    /// connection it brings. What it says becomes the peer's address, by which `client_ip.trust` judges.
    pub proxy_protocol: Option<At<ProxyProtocol>>,
    /// What is done to every request that came in here and has a route, before what the route's own `middleware` says.
    #[schemars(example = &["security-headers"])]
    pub middleware: Option<Links>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// The allowlists of the proxies. Each of their connections must begin with a header; from anybody else none is taken.
    #[schemars(required, example = ["balancers"])]
    pub from: Option<List>,
    /// How long the header may take: a duration, 100ms to 1m.
    #[schemars(extend("default" = default::PROXY_TIMEOUT))]
    pub timeout: Option<At<String>>,
}

/// At least one of `connections` and `packets`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceLimit {
    /// How many TCP connections a source may begin: a number per second or minute, 1 to 1000000.
    #[schemars(example = "50/s")]
    pub connections: Option<At<String>>,
    /// How many packets a source may send: a number per second or minute, 1 to 1000000.
    #[schemars(example = "20000/s")]
    pub packets: Option<At<String>>,
    /// So many connections may begin at once. Without it, what two seconds bring, and at least 10.
    #[schemars(range(min = 1, max = 10_000_000), example = 100)]
    pub connection_burst: Option<At<i64>>,
    /// So many packets may come at once. Without it, what two seconds bring, and at least 10.
    #[schemars(range(min = 1, max = 10_000_000), example = 40000)]
    pub packet_burst: Option<At<i64>>,
    /// Also for sources that are on an allowlist with `cdn = true`, which are spared otherwise.
    #[schemars(extend("default" = false))]
    pub cdn: Option<At<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SynCookies {
    /// While there is a flood of SYNs.
    Auto,
    /// Whenever the listener takes them.
    Always,
    /// Never.
    Off,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientIp {
    /// The request header that carries the client's address.
    #[schemars(required, example = "CF-Connecting-IP")]
    pub header: Option<At<String>>,
    /// The allowlists of the peers whose header is believed. From anybody else the header is ignored and removed.
    #[schemars(required, example = ["cloudflare"])]
    pub trust: Option<List>,
}

/// A set of servers that serve the same thing, or a service made of others: `split`, `failover`, or `service` with
/// `mirror`. Those have no servers and no settings of servers themselves; `docs/splitting.md` tells of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The servers: `ADDRESS:PORT`, or `NAME:PORT` for all addresses that DNS has for the name, or `srv:SERVICE` for all
    /// servers that it has for the service; or tables that say more of them. `docs/balancing.md` tells how work is spread
    /// over them.
    #[schemars(example = ["10.0.0.11:8080", "10.0.0.12:8080"])]
    pub servers: Option<Servers>,
    /// How it is decided which server gets a request.
    #[schemars(extend("default" = "round_robin"))]
    pub balance: Option<At<Balance>>,
    /// What `balance = "hash"` goes by: `client` (its address; of IPv6, the /64), `path` (as the server is asked for it),
    /// `header:NAME`, `cookie:NAME` or `query:NAME`. A request without it goes by its client.
    #[schemars(example = &"header:X-User")]
    pub hash_by: Option<At<String>>,
    /// With `balance = "hash"`: in percent of its fair share of the requests under way, what a server gets at most. What is
    /// beyond goes to others, so that one popular key doesn't bury its server. Without it, there is no such bound.
    #[schemars(range(min = 105, max = 1000), example = 125)]
    pub hash_bound: Option<At<i64>>,
    /// Leads visitors back to the server that they had: `cookie`, or a table that says more of the cookie. It is signed and
    /// doesn't tell the server's address. A visitor whose server is down gets another one, and a new cookie. Beside `split`
    /// it keeps visitors with the variant that they got: `cookie`, or `cookie:NAME` for a cookie of that name.
    #[schemars(example = &"cookie")]
    pub sticky: Option<Short<Sticky>>,
    /// A server that came up gets a tenth of its weight first, which grows to all of it within this time: a duration, 0s
    /// to 1h.
    #[schemars(extend("default" = "0s"))]
    pub slow_start: Option<At<String>>,
    /// A tier's servers get work while less than so many percent of the weight of all tiers above takes any. 0: while
    /// nobody above does.
    #[schemars(range(min = 0, max = 100), extend("default" = default::TIER_SPILL))]
    pub tier_spill: Option<At<i64>>,
    /// Servers of other zones get work while less than so many percent of the weight in the host's own zone takes any. 0:
    /// while nobody there does.
    #[schemars(range(min = 0, max = 100), extend("default" = default::ZONE_SPILL))]
    pub zone_spill: Option<At<i64>>,
    /// Makes the connections to the servers TLS ones.
    pub tls: Option<At<ServiceTls>>,
    /// Which HTTP is spoken with the servers, health probes included.
    #[schemars(extend("default" = "auto"))]
    pub protocol: Option<At<ServerProtocol>>,
    /// Begin every connection to a server with a header of the PROXY protocol that names the client. Such a connection
    /// serves one request only.
    pub send_proxy: Option<At<ProxyVersion>>,
    /// Whether passthrough to this service goes through the kernel or through the daemon.
    #[schemars(extend("default" = "auto"))]
    pub offload: Option<At<Offload>>,
    /// Which address its servers see when the kernel carries passthrough by port. With `keep`, which needs servers whose way
    /// back leads through this host, nothing is relayed by the daemon: what the kernel can't carry isn't carried.
    #[schemars(extend("default" = "replace"))]
    pub source: Option<At<Source>>,
    /// Asks every server regularly whether it is well. Without it, only connections that fail tell.
    pub health: Option<At<Health>>,
    pub pool: Option<At<Pool>>,
    /// Takes a server out for a while when requests fail there one after the other. Also without `health`.
    pub eject: Option<At<Eject>>,
    /// Sends the whole service no requests for a while when too many of them fail or take too long: they get the page at
    /// once.
    pub breaker: Option<At<Breaker>>,
    /// When less than this share of the servers is up, all of them get requests, as if all were: for checks that can
    /// fail everywhere at once without reason. `0%`: never.
    #[schemars(extend("default" = default::PANIC), example = "30%")]
    pub panic: Option<At<String>>,
    /// How long to wait for a server.
    pub timeouts: Option<At<Timeouts>>,
    /// When a request that a server failed to answer goes to another one.
    pub retry: Option<At<Retry>>,
    /// Asks another server too when the first one takes long. Without it, only when the first one fails.
    pub hedge: Option<At<Hedge>>,
    /// What visitors get when no server is up: `page:NAME`, or `try` to ask a server that is down all the same.
    #[schemars(extend("default" = default::WHEN_ALL_DOWN))]
    pub when_all_down: Option<At<String>>,
    /// In the place of servers: other services, each with its share of the requests. The weights are whole numbers from 0 to
    /// 10000, of which only the ratio counts; with 0 a service gets no requests. `weir split` changes them at run time.
    pub split: Option<At<BTreeMap<Name, At<i64>>>>,
    /// Beside `split`: a request whose variant can't answer goes to another one that has a weight, as far as it can be
    /// repeated safely. Without it, it gets the variant's page.
    #[schemars(extend("default" = true))]
    pub fall_over: Option<At<bool>>,
    /// Beside `split`: how `weir split NAME --judge` moves requests over.
    pub judge: Option<At<Judge>>,
    /// In the place of servers: services in the order in which they are asked. The first whose servers can answer gets
    /// the request; what it can't deliver goes on to the next, as far as it can be repeated safely.
    #[schemars(example = ["app", "app-elsewhere"])]
    pub failover: Option<List>,
    /// In the place of servers, beside `mirror`: the service that answers.
    #[schemars(example = &"app")]
    pub service: Option<At<String>>,
    /// Copies requests to another service. The copies never slow or fail what they are copied from.
    pub mirror: Option<At<Mirror>>,
    /// Pages in the place of a server's own answers, by status: `503`, `502-504` or `5xx`, from 400 on. For people: answers to
    /// clients that ask for JSON, to gRPC, and to scripts and pictures of a page stay as they are. A route's own `pages` go
    /// before these.
    pub pages: Option<At<StatusPages>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerProtocol {
    /// HTTP/1.1: one request at a time over a connection.
    Http1,
    /// HTTP/2: many requests at a time over a connection, and what gRPC needs. Without `tls` it is spoken without being
    /// asked for (h2c with prior knowledge). WebSockets need HTTP/1.1 and don't pass.
    Http2,
    /// With `tls`, HTTP/2 where the server offers it; otherwise HTTP/1.1.
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// To reach a server: a duration, 1ms to 1m.
    #[schemars(extend("default" = default::CONNECT))]
    pub connect: Option<At<String>>,
    /// From the last byte of the request to the first byte of the response: a duration, 1ms to 24h.
    #[schemars(extend("default" = default::FIRST_BYTE))]
    pub first_byte: Option<At<String>>,
    /// How long a server's kernel may leave unacknowledged, or not take, what was sent to it before the connection is given
    /// up (TCP_USER_TIMEOUT): a duration, 1s to 1h.
    #[schemars(extend("default" = default::UNACKNOWLEDGED))]
    pub unacknowledged: Option<At<String>>,
    /// Passthrough: a connection over which nothing goes in either direction for so long is closed: a duration, 1s to 30d.
    #[schemars(extend("default" = default::PASSTHROUGH_IDLE))]
    pub idle: Option<At<String>>,
    /// Passthrough: no connection lasts longer than this, whatever goes over it: a duration, 1s to 365d. Without it, as long
    /// as its ends want.
    #[schemars(example = "24h")]
    pub lifetime: Option<At<String>>,
}
