//! What one configuration changes against another: by section and name, key by key, lists prefix by prefix. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use super::{
    model::{
        AccessLogFormat, AccessLogTarget, AdminAddr, Allowlist, Config, Entrypoint, HostMatch, KernelMode,
        Page, Route, Service, SynCookies, SynCookiesMode, WhenAllDown,
    },
    value::show,
};
use crate::tls::certificates::ServerAuthorities;

/// Something that is added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

fn things(config: &Config) -> Things {
    let mut things = Things::new();
    let mut section = |name, keys| things.insert((name, String::new()), keys);
    section("kernel", kernel(config));
    section("admin", [("bind", joined(config.admin.bind.iter().map(admin)))].into());
    section("log", log(config));
    section("shutdown", [("grace", show(config.shutdown.grace))].into());
    section("state", [("dir", config.state.dir.display().to_string())].into());
    for one in &config.allowlists {
        things.insert(("allowlist", one.name.to_string()), allowlist(one));
    }
    for one in &config.entrypoints {
        things.insert(("entrypoint", one.name.to_string()), entrypoint(config, one));
    }
    for one in &config.services {
        things.insert(("service", one.name.to_string()), service(config, one));
    }
    for one in &config.pages {
        things.insert(("page", one.name.to_string()), page(one));
    }
    for one in &config.routes {
        things.insert(("route", one.name.to_string()), route(config, one));
    }
    things
}

fn kernel(config: &Config) -> Keys {
    let mode = match config.kernel.mode {
        KernelMode::Auto => "auto",
        KernelMode::Xdp => "xdp",
        KernelMode::Tc => "tc",
        KernelMode::Off => "off",
    };
    [
        ("interfaces", joined(&config.kernel.interfaces)),
        ("mode", mode.to_owned()),
        ("bpffs", config.kernel.bpffs.display().to_string()),
    ]
    .into()
}

fn log(config: &Config) -> Keys {
    let access = match &config.log.access.to {
        AccessLogTarget::Off => "off".to_owned(),
        AccessLogTarget::Stdout => "stdout".to_owned(),
        AccessLogTarget::File(path) => path.display().to_string(),
    };
    let format = match config.log.access.format {
        AccessLogFormat::Json => "json",
        AccessLogFormat::Combined => "combined",
    };
    [("access", access), ("format", format.to_owned())].into()
}

/// How it is fetched; its prefixes are told apart from its keys.
fn allowlist(one: &Allowlist) -> Keys {
    let cdn = ("cdn", one.cdn.to_string());
    let Some(fetch) = &one.fetch else { return [cdn].into() };
    let mut keys = Keys::from([
        cdn,
        ("url", joined(&fetch.source.urls)),
        ("refresh", fetch.refresh.map_or_else(|| "off".to_owned(), show)),
        ("timeout", show(fetch.timeout)),
        ("shrink_limit", fetch.shrink_limit.to_string()),
        ("ca", authorities(&fetch.authorities)),
    ]);
    if !fetch.source.json.is_empty() {
        keys.insert("json", joined(&fetch.source.json));
    }
    keys
}

fn entrypoint(config: &Config, one: &Entrypoint) -> Keys {
    let lists =
        |ids: &[super::model::AllowlistId]| joined(ids.iter().map(|id| &config.allowlists[id.0].name));
    let mut keys = Keys::from([("bind", joined(&one.bind))]);
    keys.insert("allow", if one.allow.is_empty() { "everybody".to_owned() } else { lists(&one.allow) });
    keys.insert("syn_cookies", syn_cookies(one.syn_cookies));
    if let Some(client) = &one.client_ip {
        keys.insert("client_ip", format!("{} from {}", client.header, lists(&client.trust)));
    }
    if let Some(tls) = &one.tls {
        let certificates = tls.certificates.entries.iter().map(|entry| {
            let leaf = entry.key.cert.first().map_or(&[][..], |leaf| leaf.as_ref());
            format!("{} for {} ({})", entry.file.display(), entry.names.join(" and "), fingerprint(leaf))
        });
        keys.insert("tls.certificates", joined(certificates));
        if let Some(authorities) = &tls.client_ca {
            keys.insert("tls.client_ca", roots(&authorities.0));
        }
    }
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

fn service(config: &Config, one: &Service) -> Keys {
    let mut keys = Keys::from([
        ("servers", joined(&one.servers)),
        ("timeouts.connect", show(one.timeouts.connect)),
        ("timeouts.first_byte", show(one.timeouts.first_byte)),
    ]);
    let all_down = match one.when_all_down {
        WhenAllDown::Page(page) => format!("page:{}", config.pages[page.0].name),
        WhenAllDown::Try => "try".to_owned(),
    };
    keys.insert("when_all_down", all_down);
    if let Some(health) = &one.health {
        let host = health.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        keys.insert("health.path", health.path.to_string());
        keys.extend(host.map(|host| ("health.host", host)));
        keys.insert("health.every", show(health.every));
        keys.insert("health.timeout", show(health.timeout));
        keys.insert("health.fall", health.fall.to_string());
        keys.insert("health.rise", health.rise.to_string());
    }
    if let Some(tls) = &one.tls {
        keys.insert("tls.server_name", tls.server_name.to_str().into_owned());
        keys.insert("tls.ca", authorities(&tls.authorities));
    }
    keys
}

fn page(one: &Page) -> Keys {
    let html = format!("{} bytes ({})", one.html.len(), fingerprint(&one.html));
    [("html", html), ("retry_after", show(one.retry_after))].into()
}

fn route(config: &Config, one: &Route) -> Keys {
    let host = match &one.host {
        HostMatch::Any => "any".to_owned(),
        HostMatch::Exact(host) => host.to_string(),
        HostMatch::Wildcard(host) => format!("*.{host}"),
    };
    let mut keys = Keys::from([("host", host), ("path", one.path_prefix.to_string())]);
    keys.insert("service", config.services[one.service.0].name.to_string());
    if !one.entrypoints.is_empty() {
        keys.insert("entrypoint", joined(one.entrypoints.iter().map(|id| &config.entrypoints[id.0].name)));
    }
    keys
}

fn admin(addr: &AdminAddr) -> String {
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
            ("10.0.0.1:80", "10.0.0.2:80", &["Changed service app: servers 10.0.0.1:80 → 10.0.0.2:80"]),
            ("name = 'all'", "name = 'all'\npath = '/a'", &["Changed route all: path / → /a"]),
            (
                "[service.app]",
                "[shutdown]\ngrace = '1m'\n[service.app]",
                &["Changed shutdown : grace 30s → 1m"],
            ),
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
}
