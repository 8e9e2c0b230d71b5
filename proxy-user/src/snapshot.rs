//! The running form of a configuration: immutable, whole, swapped in at once.
//!
//! What must outlive a change of configuration (health, counters, connections) is taken over from the snapshot
//! before, by name and address.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;

use crate::{
    access_log::outputs::AccessLogs,
    acme::Board,
    address::{EntrypointAddr, ServerAddr},
    admission::{Admission, PrefixSet},
    blocklist::Blocks,
    config::model::{self, AllowlistId, Carries, Config, Limits, Network, RedirectToHttps},
    connection::{crowd::Crowd, http3::settings::Http3},
    dns::Board as Names,
    drain::Drains,
    fleet::shared,
    health::{Health, Status, breaker::Breaker, ejection::Ejector},
    hygiene::Faults,
    identity::TrustedSource,
    listen::Transport,
    maintenance::Maintenance,
    middleware::{Chain, Step, reason::Tally},
    page::{Page, assets::Assets, by_status::ByStatus, why},
    passthrough::{self, counters::Hellos, datagrams::drops::Drops},
    routing::{
        Router,
        order::Order,
        rule::{Rule, Test},
    },
    service::{Server, ServerCounters, Service, Turn, WhenAllDown, balancer::Balancer},
    sticky::{
        Sticky,
        key::{self, OwnKey},
    },
    tls::{entrypoint::Terminator, server::ServerTls},
    trace::Tracer,
    upstream::{hedge::Hedging, pool::PoolKey},
    variants::{self, memory::Memory},
};

/// The pages that have a part of their own.
const MAINTENANCE: &str = "maintenance";
const ERROR: &str = "error";

#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with each applied configuration; the kernel maps carry the same number.
    pub generation: u64,
    pub config: Arc<Config>,
    pub entrypoints: Vec<Arc<Entrypoint>>,
    pub services: Vec<Arc<Service>>,
    pub access_logs: Arc<AccessLogs>,
    /// Where spans go. `None`: nobody traces.
    pub tracer: Option<Arc<Tracer>>,
    /// As in the configuration. Kept for what they count, which the next snapshot takes over.
    middleware: Vec<Arc<Step>>,
    /// Requests that each route took; in the order of the configuration. The next snapshot takes them over by name.
    pub route_requests: Vec<Arc<AtomicU64>>,
    /// Where certificates hang that were ordered, and challenges while they are.
    pub acme: Arc<Board>,
    /// One and the same for all snapshots.
    pub blocks: Arc<Blocks>,
    /// What the names of servers mean. One and the same for all snapshots.
    pub names: Arc<Names>,
    /// Weights that were set at run time. One and the same for all snapshots.
    pub splits: Arc<Memory>,
    /// Likewise.
    pub maintenance: Arc<Maintenance>,
    /// As in the configuration.
    pages: Vec<Arc<Page>>,
    pub assets: Assets,
    /// Who is drained. One and the same for all snapshots, which note it in their servers.
    pub drains: Arc<Drains>,
    /// The same address and port may be one's for datagrams and another's for all else.
    by_address: HashMap<(EntrypointAddr, bool), usize, foldhash::fast::RandomState>,
}

#[derive(Debug)]
pub struct Entrypoint {
    pub name: Arc<str>,
    pub bind: Vec<EntrypointAddr>,
    pub carries: Carries,
    pub admission: Admission,
    /// The members of its allowlists that are a CDN's.
    pub cdn: PrefixSet,
    pub client_ip: Option<TrustedSource>,
    pub tls: Option<Arc<Terminator>>,
    pub hsts: Option<HeaderValue>,
    pub http3: Option<Http3>,
    pub redirect: Option<RedirectToHttps>,
    pub router: Router<Destination>,
    /// The routes that carry connections untouched. `None`: none does here.
    pub carried: Option<passthrough::routes::Routes>,
    /// For what is refused here.
    pub error_page: Arc<Page>,
    pub limits: Limits,
    pub proxies: Option<Proxies>,
    pub crowd: Arc<Crowd>,
    pub counters: Arc<EntrypointCounters>,
}

/// Whose connections begin with a header of the PROXY protocol.
#[derive(Debug)]
pub struct Proxies {
    pub from: PrefixSet,
    pub timeout: Duration,
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub struct Destination {
    pub route: Arc<str>,
    pub chain: Arc<Chain>,
    /// `None`: its chain lets no request through.
    pub service: Option<Arc<Service>>,
    /// In the place of a server's own answers; before those of the service.
    pub pages: Option<Arc<ByStatus>>,
    /// Requests that took the route.
    pub requests: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub struct EntrypointCounters {
    pub accepted: AtomicU64,
    /// Connections of unlisted peers, turned away at accept.
    pub not_listed: AtomicU64,
    /// Connections of blocked peers, turned away at accept.
    pub blocked: AtomicU64,
    /// Connections of unlisted peers that were let in because the entrypoint is shadowed.
    pub would_turn_away: AtomicU64,
    /// TLS handshakes that failed.
    pub handshake_failures: AtomicU64,
    pub requests: AtomicU64,
    /// Requests that were answered with a status of 500 or more.
    pub failed: AtomicU64,
    /// Clients that broke a rule or a limit.
    pub faults: Faults,
    /// Requests that a middleware answered.
    pub halts: Tally,
    /// Requests that a page answered.
    pub pages: why::Tally,
    /// Connections that came to no route that carries them.
    pub hellos: Hellos,
    /// Datagrams that the relay did not carry on.
    pub datagrams: Drops,
}

impl EntrypointCounters {
    /// What was not carried untouched where it should have been, by reason: connections, or datagrams.
    pub fn not_carried(&self) -> BTreeMap<String, u64> {
        let mut counted = self.hellos.counted();
        counted.extend(self.datagrams.counted());
        counted
    }
}

/// A configuration that is valid in itself, but can't run here.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    #[error("entrypoint `{entrypoint}`: its TLS settings can't be used: {error}")]
    EntrypointTls { entrypoint: Arc<str>, error: rustls::Error },
    #[error("service `{service}`: its TLS settings can't be used: {error}")]
    ServiceTls { service: Arc<str>, error: rustls::Error },
    #[error(
        "the access log `{target}` can't be opened: {error}; does its folder exist, and may weir write there?"
    )]
    AccessLog { target: String, error: io::Error },
    #[error("`[tracing]` can't be used: {0}")]
    Tracing(io::Error),
}

// === impl Snapshot ===

impl Entrypoint {
    /// By what it is listened on at its addresses.
    pub fn transports(&self) -> impl Iterator<Item = Transport> {
        let own = if self.carries == Carries::Udp { Transport::Datagrams } else { Transport::Tcp };
        let http3 = self.http3.as_ref().map(|_| Transport::Udp);
        std::iter::once(own).chain(http3)
    }
}

impl Snapshot {
    /// Makes the running form of `config`, with all that `before` has learnt.
    ///
    /// # Errors
    /// When TLS settings are refused, or the access log can't be opened.
    pub fn new(config: Arc<Config>, acme: &Arc<Board>, before: Option<&Self>) -> Result<Self, SnapshotFault> {
        let pages: Vec<Arc<Page>> = config.pages.iter().map(|page| Arc::new(Page::new(page))).collect();
        let splits = before.map(|before| before.splits.clone());
        let splits = splits.unwrap_or_else(|| Arc::new(memory(&config)));
        let own_key = own_key(&config, &splits);
        let known = before.map_or(&[][..], |before| &before.services);
        let services = variants::running::all(&config, &splits, known, |service| {
            running_service(&config, service, &pages, own_key.as_ref(), before)
        })?;
        let drains = before.map(|before| before.drains.clone()).unwrap_or_default();
        drains.mark(&services);
        let middleware = running_middleware(&config, &services, before);
        let route_requests = route_requests(&config, before);
        let entrypoints = (0..config.entrypoints.len())
            .map(|index| {
                let routes =
                    Routes { services: &services, middleware: &middleware, requests: &route_requests };
                running_entrypoint(&config, index, &routes, &pages, acme, before).map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let by_address = entrypoints
            .iter()
            .enumerate()
            .flat_map(|(index, entrypoint)| {
                let datagrams = entrypoint.carries == Carries::Udp;
                entrypoint.bind.iter().map(move |addr| ((*addr, datagrams), index))
            })
            .collect();
        Ok(Self {
            generation: before.map_or(1, |before| before.generation + 1),
            access_logs: AccessLogs::open(&config.log, before.map(|before| &*before.access_logs))
                .map(Arc::new)
                .map_err(|(target, error)| SnapshotFault::AccessLog { target, error })?,
            tracer: Tracer::of(&config, before.and_then(|before| before.tracer.as_ref()))
                .map_err(SnapshotFault::Tracing)?,
            acme: acme.clone(),
            splits,
            blocks: before.map(|before| before.blocks.clone()).unwrap_or_default(),
            names: before.map(|before| before.names.clone()).unwrap_or_default(),
            maintenance: before.map(|before| before.maintenance.clone()).unwrap_or_default(),
            assets: Assets::new(&config.pages),
            pages,
            drains,
            config,
            entrypoints,
            services,
            middleware,
            route_requests,
            by_address,
        })
    }

    /// The entrypoint that takes connections on `addr`.
    pub fn entrypoint(&self, addr: EntrypointAddr) -> Option<&Arc<Entrypoint>> {
        self.by_address.get(&(addr, false)).map(|&index| &self.entrypoints[index])
    }

    /// The entrypoint that carries datagrams there.
    pub fn entrypoint_of_datagrams(&self, addr: EntrypointAddr) -> Option<&Arc<Entrypoint>> {
        self.by_address.get(&(addr, true)).map(|&index| &self.entrypoints[index])
    }

    /// Whether anybody listens there, and so.
    pub fn listens(&self, addr: EntrypointAddr, transport: Transport) -> bool {
        let known = match transport {
            Transport::Datagrams => self.entrypoint_of_datagrams(addr),
            Transport::Tcp | Transport::Udp => self.entrypoint(addr),
        };
        known.is_some_and(|known| known.transports().any(|one| one == transport))
    }

    /// The page of this name; one that is gone gives way to the page `maintenance`.
    pub fn page(&self, name: &str) -> &Page {
        let known = |name: &str| self.pages.iter().position(|page| *page.name == *name);
        // A valid configuration has that one.
        let index = known(name).or_else(|| known(MAINTENANCE)).unwrap_or_default();
        &self.pages[index]
    }

    /// How a service speaks TLS, if it was asked to do so in the same way: with its sessions to resume.
    fn server_tls(&self, service: &str, wanted: &model::ServiceTls) -> Option<ServerTls> {
        let index = self.services.iter().position(|known| *known.name == *service)?;
        let same = self.config.services[index].tls.as_ref()?.same_as(wanted);
        self.services[index].tls.clone().filter(|_| same)
    }

    fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.iter().map(Arc::as_ref).find(|service| &*service.name == name)
    }
}

/// The union of `lists`.
fn prefixes(config: &Config, lists: &[AllowlistId]) -> PrefixSet {
    PrefixSet::new(lists.iter().flat_map(|list| &config.allowlists[list.0].prefixes))
}

/// What routes lead to and count with, each in the order of the configuration.
struct Routes<'a> {
    services: &'a [Arc<Service>],
    middleware: &'a [Arc<Step>],
    requests: &'a [Arc<AtomicU64>],
}

fn route_requests(config: &Config, before: Option<&Snapshot>) -> Vec<Arc<AtomicU64>> {
    let known: HashMap<&Arc<str>, &Arc<AtomicU64>> = before
        .iter()
        .flat_map(|before| before.config.routes.iter().zip(&before.route_requests))
        .map(|(route, requests)| (&route.name, requests))
        .collect();
    config.routes.iter().map(|route| known.get(&route.name).copied().cloned().unwrap_or_default()).collect()
}

fn running_entrypoint(
    config: &Config,
    index: usize,
    Routes { services, middleware, requests }: &Routes<'_>,
    pages: &[Arc<Page>],
    acme: &Arc<Board>,
    before: Option<&Snapshot>,
) -> Result<Entrypoint, SnapshotFault> {
    let entrypoint = &config.entrypoints[index];
    let id = model::EntrypointId(index);
    let known =
        before.and_then(|before| before.entrypoints.iter().find(|known| known.name == entrypoint.name));
    let tls = entrypoint
        .tls
        .as_ref()
        .map(|tls| Terminator::new(tls, acme, known.and_then(|known| known.tls.as_deref())).map(Arc::new))
        .transpose()
        .map_err(|error| SnapshotFault::EntrypointTls { entrypoint: entrypoint.name.clone(), error })?;
    let http3 = tls
        .as_ref()
        .filter(|_| entrypoint.http3)
        .map(|tls| Http3::new(tls.clone(), &entrypoint.bind, &entrypoint.limits))
        .transpose()
        .map_err(|error| SnapshotFault::EntrypointTls { entrypoint: entrypoint.name.clone(), error })?;
    // Most routes have no middleware: one and the same for all of them stays in the processor's cache.
    let no_chain = Arc::new(Chain::default());
    let routes = config
        .routes
        .iter()
        .zip(*requests)
        .filter(|(route, _)| route.entrypoints.is_empty() || route.entrypoints.contains(&id))
        .flat_map(|(route, requests)| {
            let chain = entrypoint.middleware.iter().chain(&route.middleware);
            let chain = Chain::new(chain.map(|id| middleware[id.0].clone()));
            let chain = if chain.is_empty() { no_chain.clone() } else { Arc::new(chain) };
            rules(
                config,
                route,
                Destination {
                    route: route.name.clone(),
                    chain,
                    service: route.service.map(|id| services[id.0].clone()),
                    pages: by_status(&route.pages, pages),
                    requests: requests.clone(),
                },
            )
        });
    let cdns = config.allowlists.iter().filter(|list| list.cdn).flat_map(|list| &list.prefixes);
    Ok(Entrypoint {
        name: entrypoint.name.clone(),
        bind: entrypoint.bind.iter().copied().map(EntrypointAddr).collect(),
        carries: entrypoint.carries,
        admission: Admission::new(if entrypoint.allow.is_empty() {
            PrefixSet::everybody()
        } else {
            prefixes(config, &entrypoint.allow)
        })
        .shadowed(entrypoint.shadow),
        cdn: PrefixSet::new(cdns),
        client_ip: entrypoint.client_ip.as_ref().map(|source| TrustedSource {
            header: source.header.clone(),
            peers: prefixes(config, &source.trust),
        }),
        tls,
        hsts: entrypoint.hsts.clone(),
        http3,
        redirect: entrypoint.redirect.clone(),
        router: Router::new(routes),
        carried: passthrough::routes::Routes::of(config, id, services, pages),
        error_page: page_named(pages, ERROR),
        limits: entrypoint.limits.clone(),
        proxies: entrypoint
            .proxy_protocol
            .as_ref()
            .map(|proxies| Proxies { from: prefixes(config, &proxies.from), timeout: proxies.timeout }),
        crowd: known.map(|known| known.crowd.clone()).unwrap_or_default(),
        counters: known.map(|known| known.counters.clone()).unwrap_or_default(),
    })
}

/// A rule for each of a route's hosts.
pub fn rules<T: Clone>(config: &Config, route: &model::Route, target: T) -> Vec<Rule<T>> {
    let test = |condition: &model::Condition| Test {
        condition: condition.clone(),
        clients: match condition {
            model::Condition::Client(networks) => Some(networks_of(config, networks)),
            _ => None,
        },
    };
    let when: Box<[Test]> = route.when.iter().map(test).collect();
    let not: Box<[Test]> = route.not.iter().map(test).collect();
    let each = route.hosts.iter().map(|host| Rule {
        order: Order::of(route, host),
        host: host.clone(),
        path: route.path.clone(),
        when: when.clone(),
        not: not.clone(),
        target: target.clone(),
    });
    each.collect()
}

/// What middleware counts goes on by its name, and by what it does.
fn running_middleware(
    config: &Config,
    services: &[Arc<Service>],
    before: Option<&Snapshot>,
) -> Vec<Arc<Step>> {
    let known: HashMap<&Arc<str>, &Arc<Step>> =
        before.iter().flat_map(|before| &before.middleware).map(|step| (&step.name, step)).collect();
    let steps = config.middleware.iter().map(|one| {
        let known = known.get(&one.name).map(|step| &***step);
        Arc::new(Step::new(
            one.name.clone(),
            &one.kind,
            |networks| networks_of(config, networks),
            services,
            known,
        ))
    });
    steps.collect()
}

/// All of `networks`, with who is on the lists now.
pub fn networks_of(config: &Config, networks: &[Network]) -> PrefixSet {
    PrefixSet::new(networks.iter().flat_map(|network| match network {
        Network::List(list) => config.allowlists[list.0].prefixes.as_slice(),
        Network::Prefix(prefix) => std::slice::from_ref(prefix),
    }))
}

fn running_service(
    config: &Config,
    service: &model::Service,
    pages: &[Arc<Page>],
    own_key: Option<&OwnKey>,
    before: Option<&Snapshot>,
) -> Result<Service, SnapshotFault> {
    let known = before.and_then(|before| before.service_named(&service.name));
    let tls = match &service.tls {
        None => None,
        Some(wanted) => Some(match before.and_then(|before| before.server_tls(&service.name, wanted)) {
            Some(same) => same,
            None => ServerTls::new(wanted)
                .map_err(|error| SnapshotFault::ServiceTls { service: service.name.clone(), error })?,
        }),
    };
    let same_way = known.is_some_and(|known| {
        known.protocol == service.protocol && ServerTls::same(known.tls.as_ref(), tls.as_ref())
    });
    let mut servers: Vec<Server> = Vec::new();
    for written in &service.servers {
        for found in written.stands_for() {
            let addr = ServerAddr(found.address);
            // An address may have several names, or be written beside one of them.
            if servers.iter().any(|server| server.addr == addr) {
                continue;
            }
            let known_server =
                known.and_then(|known| known.servers.iter().find(|server| server.addr == addr));
            servers.push(running_server(&found, written, service.health.is_some(), same_way, known_server));
        }
    }
    let sticky = service.balancing.sticky.as_ref().and_then(|wanted| {
        let given = wanted.key.as_ref().map(|secret| (Arc::new(key::given(secret)), None));
        let (key, before) = given.or_else(|| own_key.map(|key| (key.current.clone(), key.before.clone())))?;
        let servers = servers.iter().map(|server| server.addr);
        Some(Sticky::new(wanted, &key, before.as_deref(), &service.name, servers))
    });
    let zone = config.host.zone.as_deref();
    let balancer =
        Balancer::new(&service.balancing, &servers, zone, sticky, known.map(|known| &known.balancer));
    let fallback = |page: model::PageId| pages[page.0].clone();
    Ok(Service {
        name: service.name.clone(),
        servers,
        balancer,
        protocol: service.protocol,
        send_proxy: service.send_proxy,
        offload: service.offload,
        check: service.health.clone(),
        eject: service.eject.clone().map(Ejector::new),
        breaker: service
            .breaker
            .clone()
            .map(|rules| Breaker::new(rules, known.and_then(|known| known.breaker.as_ref()))),
        panic: service.panic,
        timeouts: service.timeouts.clone(),
        pool: service.pool,
        when_all_down: match service.when_all_down {
            model::WhenAllDown::Page(page) => WhenAllDown::Page(fallback(page)),
            model::WhenAllDown::Try => WhenAllDown::TryThen(page_named(pages, MAINTENANCE)),
        },
        retry: service.retry.clone(),
        hedging: service
            .hedge
            .map(|hedge| Hedging::new(hedge, known.and_then(|known| known.hedging.as_ref()))),
        pages: by_status(&service.pages, pages),
        budget: known.map(|known| known.budget.clone()).unwrap_or_default(),
        counters: known.map(|known| known.counters.clone()).unwrap_or_default(),
        tls,
        turn: Turn::somewhere(),
        made_of: None,
    })
}

/// What was decided at run time, and the key on which the fleet has agreed, if this host knows it.
fn memory(config: &Config) -> Memory {
    let memory = Memory::at_start(&config.state.dir);
    if let Some(secret) = shared::keys::kept(config) {
        memory.agree(secret);
    }
    memory
}

/// The host's own key, if any service needs it.
fn own_key(config: &Config, memory: &Memory) -> Option<OwnKey> {
    let wanted = |service: &model::Service| {
        service.balancing.sticky.as_ref().is_some_and(|sticky| sticky.key.is_none())
    };
    config.services.iter().any(wanted).then(|| memory.own_key())
}

fn running_server(
    found: &model::Found,
    written: &model::Server,
    checked: bool,
    same_way: bool,
    known: Option<&Server>,
) -> Server {
    let fresh = if checked { Status::Starting } else { Status::Unchecked };
    let health = known
        .map(|known| known.health.clone())
        .filter(|health| (health.verdict() == Status::Unchecked) != checked)
        .unwrap_or_else(|| Arc::new(Health::new(fresh)));
    // Connections stay with their server as long as they speak what is wanted. Under other TLS settings only a new
    // handshake proves it to be the right one.
    let pool_key = known.filter(|_| same_way).map_or_else(new_pool_key, |known| known.pool_key);
    let counters: Arc<ServerCounters> = known.map(|known| known.counters.clone()).unwrap_or_default();
    let addr = ServerAddr(found.address);
    Server {
        addr,
        name: written.name().cloned(),
        weight: found.weight,
        zone: written.zone.clone(),
        tier: found.tier,
        label: addr.to_string().into(),
        health,
        pool_key,
        counters,
    }
}

fn new_pool_key() -> PoolKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    PoolKey(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One of the pages that every valid configuration has.
fn page_named(pages: &[Arc<Page>], name: &str) -> Arc<Page> {
    let known = pages.iter().find(|page| *page.name == *name).or(pages.first());
    known.cloned().unwrap_or_else(|| unreachable!("a valid configuration has the page `{name}`"))
}

fn by_status(written: &model::StatusPages, pages: &[Arc<Page>]) -> Option<Arc<ByStatus>> {
    ByStatus::new(written.iter().map(|(range, page)| (range.clone(), pages[page.0].clone())))
}
