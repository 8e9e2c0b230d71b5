//! `servers`, `balance` and what belongs to them, of `[service.NAME]`; `[host]` and `[dns]`.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    merge::{Item, Merged},
    scalar::{self, DAY, HOUR, MILLISECOND, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{BalanceWay, Balancing, Dns, HashKey, Host, SameSite, Secret, Server, ServerAt, Sticky},
    source::FileId,
    value::{self, nearest, quoted},
    written::{self, At, TextOrTable},
};

/// What a secret must have at least: as many bytes as the signature's hash.
const LEAST_SECRET: usize = 32;

const YEAR: Duration = DAY.saturating_mul(365);

pub fn servers(item: &Item<'_, written::Service>, findings: &mut Findings) -> Vec<Server> {
    let name = &item.name.value;
    let written = item.body.servers.as_ref();
    // What was discovered may have no server just now, and visitors get its page: nobody has forgotten to write one.
    if findings.sources.is_given(item.file) && written.is_some_and(|list| list.items.is_empty()) {
        return Vec::new();
    }
    let Some(list) = written.filter(|list| !list.items.is_empty()) else {
        let lost = |key| findings.lost(&format!("service.{name}.{key}"));
        if !["servers", "split", "failover", "service", "mirror"].into_iter().any(lost) {
            let span = written.map_or(&item.name.span, |list| &list.span);
            findings
                .error(Code::Missing, item.file, span, format!("service `{name}` has no server"))
                .hint("add one: `servers = [\"10.0.0.11:8080\"]`");
        }
        return Vec::new();
    };
    let mut servers: Vec<(Server, At<String>)> = Vec::new();
    for written in &list.items {
        let Some((server, address)) = server(item, written, findings) else { continue };
        if let Some((_, first)) = servers.iter().find(|(known, _)| known.at == server.at) {
            let message = format!("service `{name}`: server `{}` is listed twice", address.value);
            findings
                .error(Code::DuplicateServer, item.file, &address.span, message)
                .related(item.file, &first.span, "first listed here")
                .hint("take one of the two out; `weight = 2` gives a server twice the share");
        } else {
            servers.push((server, address));
        }
    }
    servers.into_iter().map(|(server, _)| server).collect()
}

fn server(
    item: &Item<'_, written::Service>,
    written: &written::Short<written::Server>,
    findings: &mut Findings,
) -> Option<(Server, At<String>)> {
    let (file, name) = (item.file, &item.name.value);
    let plain = written::Server::default();
    let (address, table) = match &written.kind {
        TextOrTable::Text(text) => (At { span: written.span.clone(), value: text.clone() }, &plain),
        TextOrTable::Table(table) => {
            let Some(address) = &table.address else {
                let element = format!("service.{name}.servers");
                if !findings.lost_within(&element) && !findings.lost(&element) {
                    findings
                        .error(
                            Code::Missing,
                            file,
                            &written.span,
                            format!("service `{name}`: a server has no `address`"),
                        )
                        .hint("write where it is: `{ address = \"10.0.0.11:8080\", weight = 2 }`");
                }
                return None;
            };
            (address.clone(), &**table)
        }
    };
    let at = at(item, &address, findings)?;
    if let (ServerAt::Service { .. }, Some(weight)) = (&at, &table.weight) {
        let message = format!("service `{name}`: server `{}` has weights of its own", address.value);
        findings
            .error(Code::Contradiction, file, &weight.span, message)
            .hint("they come from DNS: take `weight` out");
    }
    let what = |key: &str| format!("service `{name}`: {key} of server `{}`", address.value);
    let server = Server {
        at,
        weight: scalar::count(
            file,
            &what("weight"),
            table.weight.as_ref(),
            default::WEIGHT,
            1..=256,
            findings,
        ),
        tier: scalar::count(file, &what("tier"), table.tier.as_ref(), default::TIER, 1..=16, findings),
        zone: table.zone.as_ref().and_then(|written| zone(file, &what("zone"), written, findings)),
    };
    Some((server, address))
}

fn at(item: &Item<'_, written::Service>, written: &At<String>, findings: &mut Findings) -> Option<ServerAt> {
    let what = format!("service `{}`: server", item.name.value);
    let at = match value::server(&written.value) {
        Ok(at) => at,
        Err(refusal) => {
            scalar::refused(item.file, Code::BadAddress, &what, written, refusal, findings);
            return None;
        }
    };
    let reachable = match &at {
        ServerAt::Address(address) => address.port() != 0 && !address.ip().is_unspecified(),
        ServerAt::Name { port, .. } => *port != 0,
        ServerAt::Service { .. } => true,
    };
    if !reachable {
        findings
            .error(
                Code::BadAddress,
                item.file,
                &written.span,
                format!("{what} {} can't be connected to", quoted(&written.value)),
            )
            .hint("a server has an address of its own and a port from 1 to 65535");
        return None;
    }
    Some(at)
}

fn zone(file: FileId, what: &str, written: &At<String>, findings: &mut Findings) -> Option<Arc<str>> {
    match value::name(&written.value) {
        Ok(()) => Some(written.value.as_str().into()),
        Err(refusal) => {
            scalar::refused(file, Code::BadName, &format!("{what}:"), written, refusal, findings);
            None
        }
    }
}

pub fn balancing(item: &Item<'_, written::Service>, findings: &mut Findings) -> Balancing {
    let (file, body) = (item.file, item.body);
    let what = |key: &str| format!("service `{}`: {key}", item.name.value);
    let percent = |key: &str, written: &Option<At<i64>>, default, findings: &mut Findings| {
        scalar::count(file, &what(key), written.as_ref(), default, 0..=100, findings)
    };
    Balancing {
        way: way(item, findings),
        sticky: body.sticky.as_ref().and_then(|written| sticky(item, written, findings)),
        slow_start: scalar::duration(
            file,
            &what("slow_start"),
            body.slow_start.as_ref(),
            "0s",
            Duration::ZERO..=HOUR,
            findings,
        ),
        tier_spill: percent("tier_spill", &body.tier_spill, default::TIER_SPILL, findings),
        zone_spill: percent("zone_spill", &body.zone_spill, default::ZONE_SPILL, findings),
    }
}

fn way(item: &Item<'_, written::Service>, findings: &mut Findings) -> BalanceWay {
    let (file, body, name) = (item.file, item.body, &item.name.value);
    let way = match body.balance.as_ref().map(|balance| balance.value) {
        Some(written::Balance::RoundRobin) | None => BalanceWay::RoundRobin,
        Some(written::Balance::LeastRequests) => BalanceWay::LeastRequests,
        Some(written::Balance::Latency) => BalanceWay::Latency,
        Some(written::Balance::Hash) => {
            let by = match &body.hash_by {
                Some(written) => hash_key(item, written, findings),
                None => {
                    if !findings.lost(&format!("service.{name}.hash_by"))
                        && let Some(balance) = &body.balance
                    {
                        let message = format!("service `{name}`: `balance = \"hash\"` has no `hash_by`");
                        findings
                            .error(Code::Missing, file, &balance.span, message)
                            .hint("say what is hashed: `hash_by = \"client\"` or `\"header:X-User\"`");
                    }
                    None
                }
            };
            let bound = body.hash_bound.as_ref().map(|bound| {
                let what = format!("service `{name}`: hash_bound");
                scalar::count(file, &what, Some(bound), 125, 105..=1000, findings)
            });
            return BalanceWay::Hash { by: by.unwrap_or(HashKey::Client), bound };
        }
    };
    let spans = [
        ("hash_by", body.hash_by.as_ref().map(|by| &by.span)),
        ("hash_bound", body.hash_bound.as_ref().map(|bound| &bound.span)),
    ];
    for (key, span) in spans {
        if let Some(span) = span
            && !findings.lost(&format!("service.{name}.balance"))
        {
            let message = format!("service `{name}`: `{key}` means nothing with `balance = \"{way}\"`");
            findings
                .error(Code::Contradiction, file, span, message)
                .hint("take it out, or write `balance = \"hash\"`");
        }
    }
    way
}

fn hash_key(
    item: &Item<'_, written::Service>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<HashKey> {
    let text = &written.value;
    let key = match text.split_once(':') {
        Some(("header", name)) => name.parse::<HeaderName>().ok().map(HashKey::Header),
        Some(("cookie", name)) if value::is_token(name) => Some(HashKey::Cookie(name.into())),
        Some(("query", name))
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && !"&=#".contains(c)) =>
        {
            Some(HashKey::Query(name.into()))
        }
        None if text == "client" => Some(HashKey::Client),
        None if text == "path" => Some(HashKey::Path),
        _ => None,
    };
    if key.is_none() {
        let message =
            format!("service `{}`: hash_by {} is nothing to hash by", item.name.value, quoted(text));
        let finding = findings.error(Code::WrongValue, item.file, &written.span, message);
        match nearest(text, ["client", "path"]) {
            Some(near) => finding.suggest(Some(near)),
            None => finding.hint("write `client`, `path`, `header:NAME`, `cookie:NAME` or `query:NAME`"),
        };
    }
    key
}

fn sticky(
    item: &Item<'_, written::Service>,
    written: &written::Short<written::Sticky>,
    findings: &mut Findings,
) -> Option<Sticky> {
    let (file, service) = (item.file, &item.name.value);
    let plain = written::Sticky::default();
    let table = match &written.kind {
        TextOrTable::Table(table) => &**table,
        TextOrTable::Text(text) if text == "cookie" => &plain,
        TextOrTable::Text(text) => {
            let message = format!("service `{service}`: sticky {} is not a way to be sticky", quoted(text));
            findings.error(Code::WrongValue, file, &written.span, message).hint(
                "write `sticky = \"cookie\"`, or a table: `sticky = { name = \"lb\", max_age = \"1d\" }`",
            );
            return None;
        }
    };
    let what = |key: &str| format!("service `{service}`: sticky.{key}");
    let name = table.name.as_ref().map_or_else(|| format!("weir-{service}"), |name| name.value.clone());
    if let Some(written) = table.name.as_ref().filter(|name| !value::is_token(&name.value)) {
        let message = format!("{} {} is not a cookie's name", what("name"), quoted(&written.value));
        findings
            .error(Code::BadHeader, file, &written.span, message)
            .hint("it consists of letters, digits, `-` and `_`");
    }
    let path = table.path.as_ref().map_or("/", |path| &path.value);
    let sound = |path: &str| path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != ';');
    if let Some(written) = table.path.as_ref().filter(|path| !sound(&path.value)) {
        let message = format!("{} {} is not a path", what("path"), quoted(&written.value));
        findings
            .error(Code::BadPath, file, &written.span, message)
            .hint("it begins with `/` and holds no `;`");
    }
    let same_site = match table.same_site.as_ref().map(|written| written.value) {
        Some(written::SameSite::Strict) => SameSite::Strict,
        Some(written::SameSite::Lax) | None => SameSite::Lax,
        Some(written::SameSite::None) => SameSite::None,
    };
    if let (SameSite::None, Some(secure)) = (same_site, table.secure.as_ref().filter(|secure| !secure.value))
    {
        let message = format!("service `{service}`: a cookie for `same_site = \"none\"` must be `secure`");
        findings
            .error(Code::Contradiction, file, &secure.span, message)
            .hint("browsers take it in no other way: leave `secure` out or make it true");
    }
    let max_age = table.max_age.as_ref().map(|written| {
        let max_age = scalar::duration(file, &what("max_age"), Some(written), "1d", SECOND..=YEAR, findings);
        if max_age.subsec_nanos() != 0 {
            let message = format!("{} {} is not in whole seconds", what("max_age"), quoted(&written.value));
            findings.error(Code::BadDuration, file, &written.span, message);
        }
        max_age
    });
    Some(Sticky {
        name: name.into(),
        max_age,
        secure: table.secure.as_ref().map(|secure| secure.value),
        http_only: table.http_only.as_ref().is_none_or(|http_only| http_only.value),
        same_site,
        path: path.into(),
        keep_drained: table.keep_drained.as_ref().is_none_or(|keep| keep.value),
        key: table.key_file.as_ref().and_then(|written| secret(file, &what("key_file"), written, findings)),
    })
}

/// `sticky` beside `split`, where it keeps visitors with their variant: as `cookie` or `cookie:NAME`.
pub fn sticky_of_split(
    file: FileId,
    by: &str,
    written: Option<&written::Short<written::Sticky>>,
    findings: &mut Findings,
) -> Option<At<String>> {
    let written = written?;
    let at = |value| At { span: written.span.clone(), value };
    match &written.kind {
        TextOrTable::Text(text) => Some(at(text.clone())),
        TextOrTable::Table(_) => {
            findings
                .error(
                    Code::WrongValue,
                    file,
                    &written.span,
                    format!("{by}: `sticky` is a table, but beside `split` it is a text"),
                )
                .hint("write `cookie`, or `cookie:NAME` for a cookie of that name");
            None
        }
    }
}

/// What a file of the operator's holds.
pub fn secret(file: FileId, what: &str, written: &At<String>, findings: &mut Findings) -> Option<Secret> {
    let path = findings.sources.resolve(file, &written.value);
    findings.watch(&path);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) => {
            let message = format!("{what}: `{}` can't be read: {error}", path.display());
            findings.error(Code::BadSecret, file, &written.span, message);
            return None;
        }
    };
    let content = content.trim_ascii();
    if content.len() < LEAST_SECRET {
        let message = format!("{what}: `{}` holds only {} bytes", path.display(), content.len());
        findings.error(Code::BadSecret, file, &written.span, message).hint(format!(
            "a secret has at least {LEAST_SECRET}: `head -c 32 /dev/urandom | base64` makes one"
        ));
        return None;
    }
    Some(Secret(content.into()))
}

pub fn host(written: &Merged<'_>, findings: &mut Findings) -> Host {
    let zone = written
        .host
        .and_then(|(file, section)| Some((file, section.value.zone.as_ref()?)))
        .and_then(|(file, written)| zone(file, "host.zone", written, findings));
    Host { zone }
}

pub fn dns(written: &Merged<'_>, findings: &mut Findings) -> Dns {
    let by_default = |text| value::duration(text).unwrap_or_default();
    let Some((file, section)) = written.dns else {
        return Dns {
            servers: Vec::new(),
            min_ttl: by_default(default::DNS_MIN_TTL),
            max_ttl: by_default(default::DNS_MAX_TTL),
            timeout: by_default(default::DNS_TIMEOUT),
        };
    };
    let section = &section.value;
    let mut servers = Vec::new();
    for server in section.servers.iter().flat_map(|list| &list.items) {
        match value::socket_address(&server.value) {
            Ok(address) => servers.push(address),
            Err(refusal) => {
                scalar::refused(file, Code::BadAddress, "dns.servers:", server, refusal, findings);
            }
        }
    }
    if let Some(list) = section.servers.as_ref().filter(|list| list.items.is_empty())
        && !findings.lost("dns.servers")
    {
        findings
            .error(Code::EmptyList, file, &list.span, "dns.servers is empty: nobody could be asked")
            .hint("leave it out to ask those of /etc/resolv.conf");
    }
    let mut min_ttl = scalar::duration(
        file,
        "dns.min_ttl",
        section.min_ttl.as_ref(),
        default::DNS_MIN_TTL,
        SECOND..=HOUR,
        findings,
    );
    let mut max_ttl = scalar::duration(
        file,
        "dns.max_ttl",
        section.max_ttl.as_ref(),
        default::DNS_MAX_TTL,
        SECOND..=DAY,
        findings,
    );
    if max_ttl < min_ttl {
        // One that isn't written gives way.
        if let (Some(written), Some(_)) = (&section.max_ttl, &section.min_ttl) {
            let message = format!(
                "dns: a name would be asked for again after {} at the latest, and after {} at the soonest",
                value::show(max_ttl),
                value::show(min_ttl)
            );
            findings
                .error(Code::Contradiction, file, &written.span, message)
                .hint("`max_ttl` can't be shorter than `min_ttl`");
        }
        match section.max_ttl {
            Some(_) => min_ttl = max_ttl,
            None => max_ttl = min_ttl,
        }
    }
    let timeout = scalar::duration(
        file,
        "dns.timeout",
        section.timeout.as_ref(),
        default::DNS_TIMEOUT,
        100 * MILLISECOND..=30 * SECOND,
        findings,
    );
    Dns { servers, min_ttl, max_ttl, timeout }
}
