//! What one configuration changes against another: by section and name, key by key, lists prefix by prefix. Pure.
//!
//! Everything of the model is taken apart without `..`: a key that is new there doesn't compile until it is told here, or
//! left out with a reason.

mod balancing;
mod carried;
mod pages;
mod providers;
mod health;
mod kubernetes;
mod log;
mod retry;
mod tls;
mod variants;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use super::{
    model::{
        Acme, AcmeChallenge, Admin, AdminAddr, AdminTls, Allowlist, AllowlistId, Cgroup, ClientIpSource,
        Condition, Config, Entrypoint, Fetch, HostMatch, Kernel, KernelMode, Limits, ListSource, Middleware,
        MiddlewareId, Network, Pool, Process, ProxyProtocol, Rate, Route, ServerProtocol, Service,
        ServiceTls, Shutdown, SourceLimit, StateFolder, SynCookies, SynCookiesMode, Timeouts, Upgrade,
        WhenAllDown,
    },
    value::{show, show_rate, show_size},
};
use crate::tls::certificates::ServerAuthorities;

/// Something that is added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// `entrypoint`, `allowlist`, `service`, `route`, `page`, or a section without names: `kernel` …
    pub section: String,
    /// Empty for a section without names.
    pub name: String,
    pub how: How,
    /// Of what has changed: the keys. Of what is added or removed: all of them.
    pub keys: Vec<Key>,
    /// Of an allowlist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes_added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes_removed: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Key {
    pub key: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// The keys of something, as text.
type Keys = BTreeMap<&'static str, String>;

/// All named things of a configuration.
type Things = BTreeMap<(&'static str, String), Keys>;

/// What `next` changes against `before`. Nothing, if they mean the same.
pub fn of(before: &Config, next: &Config) -> Vec<Change> {
    let (old, new) = (things(before), things(next));
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for thing in all {
        let (section, name) = thing;
        let how = match (old.contains_key(thing), new.contains_key(thing)) {
            (true, true) => How::Changed,
            (true, false) => How::Removed,
            _ => How::Added,
        };
        let keys = keys(old.get(thing), new.get(thing));
        let (prefixes_added, prefixes_removed) = match *section {
            "allowlist" => prefixes(list(before, name), list(next, name)),
            _ => (Vec::new(), Vec::new()),
        };
        let same = keys.is_empty() && prefixes_added.is_empty() && prefixes_removed.is_empty();
        if how != How::Changed || !same {
            let (section, name) = ((*section).to_owned(), name.clone());
            changes.push(Change { section, name, how, keys, prefixes_added, prefixes_removed });
        }
    }
    changes
}

fn keys(before: Option<&Keys>, after: Option<&Keys>) -> Vec<Key> {
    let none = Keys::new();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Key {
            key: (*key).to_owned(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        })
        .collect()
}

fn prefixes(before: Option<&Allowlist>, after: Option<&Allowlist>) -> (Vec<String>, Vec<String>) {
    let set = |list: Option<&Allowlist>| -> BTreeSet<_> {
        list.map(|list| list.prefixes.iter().copied().collect()).unwrap_or_default()
    };
    let (before, after) = (set(before), set(after));
    let texts =
        |one: &BTreeSet<_>, other: &BTreeSet<_>| one.difference(other).map(ToString::to_string).collect();
    (texts(&after, &before), texts(&before, &after))
}

fn list<'a>(config: &'a Config, name: &str) -> Option<&'a Allowlist> {
    config.allowlists.iter().find(|list| *list.name == *name)
}

/// Everything that a configuration says.
pub(super) fn things(config: &Config) -> Things {
    let Config {
        kernel,
        admin,
        log,
        process: Process { user, group, sandbox },
        tracing,
        metrics,
        shutdown: Shutdown { delay, grace },
        upgrade: Upgrade { ready, drain },
        state: StateFolder { dir },
        providers: sources,
        fleet,
        host,
        dns,
        acme,
        allowlists,
        entrypoints,
        services,
        pages,
        maintenance,
        middleware,
        routes,
        carried,
    } = config;
    let mut things = Things::new();
    let mut section = |name, keys| things.insert((name, String::new()), keys);
    section("kernel", self::kernel(kernel));
    section("admin", self::admin(admin));
    section("log", self::log::log(log));
    section(
        "process",
        [
            ("user", user.clone().unwrap_or_default()),
            ("group", group.clone().unwrap_or_default()),
            ("sandbox", sandbox.to_string()),
        ]
        .into(),
    );
    section("shutdown", [("delay", show(*delay)), ("grace", show(*grace))].into());
    section("upgrade", [("ready", show(*ready)), ("drain", show(*drain))].into());
    section("state", [("dir", dir.display().to_string())].into());
    section("host", balancing::host(host));
    section("dns", balancing::dns(dns));
    for one in &log.access {
        things.insert(("access_log", one.name.to_string()), self::log::access_log(one));
    }
    if let Some(tracing) = tracing {
        things.insert(("tracing", String::new()), self::log::tracing(tracing));
    }
    if let Some(metrics) = metrics {
        things.insert(("metrics", String::new()), self::log::metrics(metrics));
    }
    if let Some(acme) = acme {
        things.insert(("acme", String::new()), self::acme(acme));
    }
    if let Some(fleet) = fleet {
        things.insert(("fleet", String::new()), self::providers::fleet(fleet));
    }
    for one in sources {
        things.insert(("provider", one.name.to_string()), self::providers::provider(one));
    }
    for one in allowlists {
        things.insert(("allowlist", one.name.to_string()), allowlist(one));
    }
    for one in entrypoints {
        things.insert(("entrypoint", one.name.to_string()), entrypoint(config, one));
    }
    for one in services {
        things.insert(("service", one.name.to_string()), service(config, one));
    }
    for (nth, one) in maintenance.iter().enumerate() {
        things.insert(("maintenance", (nth + 1).to_string()), self::pages::maintenance(config, one));
    }
    for one in pages {
        things.insert(("page", one.name.to_string()), self::pages::page(config, one));
    }
    for one in middleware {
        things.insert(("middleware", one.name.to_string()), self::middleware(one));
    }
    for one in routes {
        things.insert(("route", one.name.to_string()), route(config, one));
    }
    for one in carried {
        things.insert(("route", one.name.to_string()), self::carried::route(config, one));
    }
    things
}

fn kernel(Kernel { interfaces, mode, bpffs, cgroup, nat_ports, max_flows }: &Kernel) -> Keys {
    let mode = match mode {
        KernelMode::Auto => "auto",
        KernelMode::Xdp => "xdp",
        KernelMode::Tc => "tc",
        KernelMode::Off => "off",
    };
    let cgroup = match cgroup {
        Cgroup::Auto => "auto".to_owned(),
        Cgroup::Off => "off".to_owned(),
        Cgroup::At(path) => path.display().to_string(),
    };
    [
        ("interfaces", joined(interfaces)),
        ("mode", mode.to_owned()),
        ("bpffs", bpffs.display().to_string()),
        ("cgroup", cgroup),
        ("nat_ports", nat_ports.to_string()),
        ("max_flows", max_flows.to_string()),
    ]
    .into()
}

fn acme(Acme { directory, contact, authorities: trusted, challenge }: &Acme) -> Keys {
    let challenge = match challenge {
        AcmeChallenge::Http01 => "http-01",
        AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
    };
    [
        ("directory", directory.to_string()),
        ("contact", joined(contact)),
        ("ca", authorities(trusted)),
        ("challenge", challenge.to_owned()),
    ]
    .into()
}

/// How it is fetched. What is on it is told apart from its keys, prefix by prefix: as it is in force, not as it is
/// written.
fn allowlist(Allowlist { name: _, prefixes: _, written: _, fetch, cdn }: &Allowlist) -> Keys {
    let cdn = ("cdn", cdn.to_string());
    let Some(fetch) = fetch else { return [cdn].into() };
    // The floor comes with the version, and is among the prefixes while it counts.
    let Fetch { source, refresh, timeout, shrink_limit, authorities, floor: _ } = fetch;
    let ListSource { urls, json } = source;
    let mut keys = Keys::from([
        cdn,
        ("url", joined(urls)),
        ("refresh", refresh.map_or_else(|| "off".to_owned(), show)),
        ("timeout", show(*timeout)),
        ("shrink_limit", shrink_limit.to_string()),
        ("ca", self::authorities(authorities)),
    ]);
    if !json.is_empty() {
        keys.insert("json", joined(json));
    }
    keys
}

fn entrypoint(config: &Config, one: &Entrypoint) -> Keys {
    let Entrypoint {
        name: _,
        bind,
        floating,
        carries,
        allow,
        shadow,
        source_limit,
        syn_cookies,
        client_ip,
        tls,
        hsts,
        http3,
        redirect,
        limits,
        proxy_protocol,
        middleware,
    } = one;
    let lists = |ids: &[AllowlistId]| joined(ids.iter().map(|id| &config.allowlists[id.0].name));
    let mut keys = Keys::from([("bind", joined(bind)), ("protocol", carries.name().to_owned())]);
    keys.insert("allow", if allow.is_empty() { "everybody".to_owned() } else { lists(allow) });
    keys.insert("floating", floating.to_string());
    keys.insert("shadow", shadow.to_string());
    if let Some(SourceLimit { packets, connections, cdn }) = source_limit {
        let rate =
            |Rate { count, per, burst }: &Rate| format!("{}, {burst} at once", show_rate(*count, *per));
        keys.extend(connections.as_ref().map(|limit| ("source_limit.connections", rate(limit))));
        keys.extend(packets.as_ref().map(|limit| ("source_limit.packets", rate(limit))));
        keys.insert("source_limit.cdn", cdn.to_string());
    }
    keys.insert("syn_cookies", self::syn_cookies(*syn_cookies));
    if let Some(ClientIpSource { header, trust }) = client_ip {
        keys.insert("client_ip", format!("{header} from {}", lists(trust)));
    }
    if *http3 {
        keys.insert("http3", http3.to_string());
    }
    chain(config, middleware, &mut keys);
    tls::entrypoint(tls.as_ref(), hsts.as_ref(), redirect.as_ref(), &mut keys);
    if let Some(ProxyProtocol { from, timeout }) = proxy_protocol {
        keys.insert("proxy_protocol", format!("from {} within {}", lists(from), show(*timeout)));
    }
    self::limits(limits, &mut keys);
    keys
}

fn syn_cookies(SynCookies { mode, from, cdn }: SynCookies) -> String {
    let cdn = if cdn { ", of CDNs too" } else { "" };
    match mode {
        SynCookiesMode::Auto => format!("from {from}/s{cdn}"),
        SynCookiesMode::Always => format!("always{cdn}"),
        SynCookiesMode::Off => "off".to_owned(),
    }
}

fn limits(limits: &Limits, keys: &mut Keys) {
    let Limits {
        fields,
        head,
        head_time,
        body_idle,
        stream_idle,
        keep_alive,
        streams,
        connections,
        connections_per_client,
    } = limits;
    let count = |limit: Option<u32>| limit.unwrap_or(0).to_string();
    keys.extend([
        ("limits.fields", fields.to_string()),
        ("limits.head", show_size(*head as u64)),
        ("limits.head_time", show(*head_time)),
        ("limits.body_idle", show(*body_idle)),
        ("limits.stream_idle", show(*stream_idle)),
        ("limits.keep_alive", show(*keep_alive)),
        ("limits.streams", streams.to_string()),
        ("limits.connections", count(*connections)),
        ("limits.connections_per_client", count(*connections_per_client)),
    ]);
}

fn service(config: &Config, one: &Service) -> Keys {
    let Service {
        name: _,
        servers,
        balancing,
        made_of,
        tls,
        protocol,
        send_proxy,
        offload,
        source,
        health: check,
        eject,
        breaker,
        panic,
        timeouts,
        pool,
        retry,
        hedge,
        when_all_down,
        pages,
    } = one;
    if let Some(made_of) = made_of {
        return variants::made_of(config, made_of);
    }
    let Timeouts { connect, first_byte, unacknowledged, idle, lifetime } = timeouts;
    let mut keys = Keys::from([
        ("servers", joined(servers)),
        ("timeouts.connect", show(*connect)),
        ("timeouts.first_byte", show(*first_byte)),
        ("timeouts.unacknowledged", show(*unacknowledged)),
        ("timeouts.idle", show(*idle)),
    ]);
    keys.extend(lifetime.map(|lifetime| ("timeouts.lifetime", show(lifetime))));
    self::retry::service(retry, hedge.as_ref(), &mut keys);
    let Pool { warm, idle, idle_timeout } = pool;
    keys.insert("pool.warm", warm.to_string());
    keys.insert("pool.idle", idle.to_string());
    keys.insert("pool.idle_timeout", show(*idle_timeout));
    let all_down = match when_all_down {
        WhenAllDown::Page(page) => format!("page:{}", config.pages[page.0].name),
        WhenAllDown::Try => "try".to_owned(),
    };
    keys.insert("when_all_down", all_down);
    balancing::service(balancing, &mut keys);
    self::pages::by_status(config, pages, &mut keys);
    let protocol = match protocol {
        ServerProtocol::Http1 => "http1",
        ServerProtocol::Http2 => "http2",
        ServerProtocol::Auto => "auto",
    };
    keys.insert("protocol", protocol.to_owned());
    keys.insert("offload", offload.name().to_owned());
    keys.insert("source", source.name().to_owned());
    if let Some(version) = send_proxy {
        keys.insert("send_proxy", format!("{version:?}").to_lowercase());
    }
    if let Some(check) = check {
        health::health(check, &mut keys);
    }
    if let Some(eject) = eject {
        health::eject(eject, &mut keys);
    }
    if let Some(breaker) = breaker {
        health::breaker(breaker, &mut keys);
    }
    if *panic > 0 {
        keys.insert("panic", format!("{panic}%"));
    }
    if let Some(ServiceTls { server_name, authorities, certificate }) = tls {
        keys.insert("tls.server_name", server_name.to_str().into_owned());
        keys.insert("tls.ca", self::authorities(authorities));
        keys.extend(
            certificate.as_ref().map(|own| ("tls.client_certificate", tls::certificate(own.as_ref()))),
        );
    }
    keys
}

fn route(config: &Config, one: &Route) -> Keys {
    let Route { name: _, entrypoints, hosts, path, when, not, priority, middleware, service, pages } = one;
    let host = match hosts.as_slice() {
        [HostMatch::Any] => "any".to_owned(),
        hosts => joined(hosts),
    };
    let mut keys = Keys::from([("host", host), ("path", path.to_string())]);
    for (key, conditions) in [("when", when), ("not", not)] {
        if !conditions.is_empty() {
            keys.insert(key, joined(conditions.iter().map(|condition| shown(config, condition))));
        }
    }
    if *priority != 0 {
        keys.insert("priority", priority.to_string());
    }
    if let Some(service) = service {
        keys.insert("service", config.services[service.0].name.to_string());
    }
    self::pages::by_status(config, pages, &mut keys);
    chain(config, middleware, &mut keys);
    if !entrypoints.is_empty() {
        keys.insert("entrypoint", joined(entrypoints.iter().map(|id| &config.entrypoints[id.0].name)));
    }
    keys
}

fn chain(config: &Config, middleware: &[MiddlewareId], keys: &mut Keys) {
    if !middleware.is_empty() {
        keys.insert("middleware", joined(middleware.iter().map(|id| &config.middleware[id.0].name)));
    }
}

/// Of each only that it changed: much of it is long, and some of it secret.
fn middleware(one: &Middleware) -> Keys {
    let Middleware { name: _, kind } = one;
    [(kind.key(), fingerprint(format!("{kind:?}").as_bytes()))].into()
}

pub(super) fn shown(config: &Config, condition: &Condition) -> String {
    let Condition::Client(networks) = condition else { return condition.to_string() };
    let network = |network: &Network| match network {
        Network::List(id) => config.allowlists[id.0].name.to_string(),
        Network::Prefix(prefix) => prefix.to_string(),
    };
    format!("client in {}", joined(networks.iter().map(network)))
}

/// `by_default`: nobody wrote it, and it says nothing that the addresses don't.
fn admin(Admin { bind, by_default: _, token, tls }: &Admin) -> Keys {
    let mut keys = Keys::from([("bind", joined(bind.iter().map(admin_address)))]);
    keys.extend(token.as_ref().map(|token| ("token_file", format!("a secret ({})", fingerprint(&token.0)))));
    if let Some(AdminTls { certificates, clients }) = tls {
        keys.insert("tls.certificates", joined(certificates.entries.iter().map(tls::certificate)));
        keys.extend(clients.as_ref().map(|clients| ("tls.client_ca", roots(&clients.authorities.0))));
    }
    keys
}

fn admin_address(addr: &AdminAddr) -> String {
    match addr {
        AdminAddr::Tcp(addr) => addr.to_string(),
        AdminAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn authorities(trusted: &ServerAuthorities) -> String {
    match trusted {
        ServerAuthorities::System => "the operating system's".to_owned(),
        ServerAuthorities::Own(store) => roots(store),
        ServerAuthorities::Anybody => "anybody (insecure)".to_owned(),
    }
}

fn roots(store: &rustls::RootCertStore) -> String {
    let mut hasher = DefaultHasher::new();
    for root in &store.roots {
        root.subject.as_ref().hash(&mut hasher);
        root.subject_public_key_info.as_ref().hash(&mut hasher);
    }
    format!("{} authorities ({:08x})", store.len(), hasher.finish() as u32)
}

/// Tells contents apart for the eye; no more is asked of it.
fn fingerprint(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:08x}", hasher.finish() as u32)
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_text;

    const BEFORE: &str = "
[allowlist.office]
prefixes = ['203.0.113.0/24', '2001:db8::/32']
[entrypoint.web]
bind = '0.0.0.0:80'
allow = 'office'
[service.app]
servers = '10.0.0.1:80'
[[route]]
name = 'all'
service = 'app'
";

    fn config(text: &str) -> Config {
        load_text(Path::new("weir.toml"), text).unwrap_or_else(|report| panic!("{report}")).config
    }

    /// `how section name: key before → after`, one a line.
    fn changes(after: &str) -> Vec<String> {
        of(&config(BEFORE), &config(after))
            .into_iter()
            .flat_map(|change| {
                let what = format!("{:?} {} {}:", change.how, change.section, change.name);
                let none = String::new();
                let keys = change.keys.iter().map(|key| {
                    let (before, after) = (key.before.as_ref(), key.after.as_ref());
                    format!("{what} {} {} → {}", key.key, before.unwrap_or(&none), after.unwrap_or(&none))
                });
                let added = change.prefixes_added.iter().map(|prefix| format!("{what} +{prefix}"));
                let removed = change.prefixes_removed.iter().map(|prefix| format!("{what} -{prefix}"));
                keys.chain(added).chain(removed).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_same_meaning_is_no_change() {
        assert_eq!(changes(BEFORE), [""; 0]);
        assert_eq!(changes(&format!("# a remark\n{}", BEFORE.replace("'all'", "\"all\""))), [""; 0]);
        let turned = BEFORE.replace("'203.0.113.0/24', '2001:db8::/32'", "'2001:db8::/32', '203.0.113.0/24'");
        assert_eq!(changes(&turned), [""; 0], "the order of a list means nothing");
    }

    #[test]
    fn every_change_is_told_with_what_was_before() {
        for (from, to, told) in [
            (
                "'203.0.113.0/24'",
                "'198.51.100.0/24'",
                &["Changed allowlist office: +198.51.100.0/24", "Changed allowlist office: -203.0.113.0/24"]
                    [..],
            ),
            ("0.0.0.0:80", "0.0.0.0:8080", &["Changed entrypoint web: bind 0.0.0.0:80 → 0.0.0.0:8080"]),
            ("allow = 'office'", "", &["Changed entrypoint web: allow office → everybody"]),
            (
                "allow = 'office'",
                "allow = 'office'\nshadow = true",
                &["Changed entrypoint web: shadow false → true"],
            ),
            (
                "[service.app]",
                "[state]\ndir = '/srv/weir'\n[service.app]",
                &["Changed state : dir /var/lib/weir → /srv/weir"],
            ),
            ("10.0.0.1:80", "10.0.0.2:80", &["Changed service app: servers 10.0.0.1:80 → 10.0.0.2:80"]),
            ("name = 'all'", "name = 'all'\npath = '/a'", &["Changed route all: path / → /a"]),
            (
                "[service.app]",
                "[process]\nuser = 'weir'\nsandbox = false\n[service.app]",
                &["Changed process : sandbox true → false", "Changed process : user  → weir"],
            ),
            (
                "[service.app]",
                "[shutdown]\ngrace = '1m'\n[service.app]",
                &["Changed shutdown : grace 30s → 1m"],
            ),
            (
                "[service.app]",
                "[shutdown]\ndelay = '15s'\n[service.app]",
                &["Changed shutdown : delay 0s → 15s"],
            ),
            ("[service.app]", "[upgrade]\ndrain = '5m'\n[service.app]", &["Changed upgrade : drain 1h → 5m"]),
            (
                "[service.app]",
                "[page.maintenance]\nretry_after = '1m'\n[service.app]",
                &["Changed page maintenance: retry_after 30s → 1m"],
            ),
            (
                "name = 'all'",
                "name = 'every'",
                &[
                    "Removed route all: host any → ",
                    "Removed route all: path / → ",
                    "Removed route all: service app → ",
                    "Added route every: host  → any",
                    "Added route every: path  → /",
                    "Added route every: service  → app",
                ],
            ),
        ] {
            assert_eq!(changes(&BEFORE.replace(from, to)), told, "{to}");
        }
    }

    #[test]
    fn how_a_list_is_fetched_is_told_key_by_key() {
        const FETCHED: &str = "[allowlist.cdn]\nurl = 'https://a.example/list'\nrefresh = '6h'\n";
        let with =
            |text: &str| config(&BEFORE.replace("[allowlist.office]", &format!("{text}[allowlist.office]")));
        for (from, to, told) in [
            ("a.example", "b.example", "url https://a.example/list → https://b.example/list"),
            ("6h", "off", "refresh 6h → off"),
            ("refresh", "timeout = '3s'\nrefresh", "timeout 15s → 3s"),
            ("refresh", "shrink_limit = 80\nrefresh", "shrink_limit 50 → 80"),
            ("refresh", "json = '/list'\nrefresh", "json  → /list"),
        ] {
            let changes = of(&with(FETCHED), &with(&FETCHED.replace(from, to)));
            let keys = changes.iter().flat_map(|change| &change.keys).map(|key| {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                format!("{} {} → {}", key.key, text(&key.before), text(&key.after))
            });
            assert_eq!(keys.collect::<Vec<_>>(), [told], "{to}");
        }
    }
}
