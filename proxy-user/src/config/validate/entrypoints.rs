//! `[entrypoint.NAME]`

use std::net::SocketAddr;

use http::HeaderName;

use super::{
    globals, https, limits,
    merge::{Item, Merged},
    middleware::Chains,
    passthrough::{self, Protocols},
    scalar::{self, MILLISECOND, MINUTE},
    source_limit, syn_cookies, tls,
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{AllowlistId, ClientIpSource, Entrypoint, ProxyProtocol},
    source::FileId,
    value::{self, quoted},
    written::{self, At, List},
};

pub fn all(written: &Merged<'_>, chains: &mut Chains<'_, '_>, findings: &mut Findings) -> Vec<Entrypoint> {
    let mut taken = Taken::by_admin(written);
    written
        .entrypoints
        .items
        .iter()
        .map(|item| Entrypoint {
            name: item.name.value.as_str().into(),
            bind: bind(item, &mut taken, findings),
            floating: item.body.floating.as_ref().is_some_and(|floating| floating.value),
            carries: passthrough::carries(item, findings),
            allow: allow(item, written, findings),
            shadow: shadow(item, findings),
            source_limit: source_limit::of(item, findings),
            syn_cookies: syn_cookies::of(item, findings),
            client_ip: client_ip(item, written, findings),
            tls: item.body.tls.as_ref().and_then(|tls| tls::entrypoint(item, tls, written, findings)),
            hsts: https::hsts(item, findings),
            http3: https::http3(item, findings),
            redirect: https::redirect(item, findings),
            limits: limits::limits(item, findings),
            proxy_protocol: proxy_protocol(item, written, findings),
            middleware: {
                let owner = format!("entrypoint `{}`", item.name.value);
                chains.chain(item.file, &owner, item.body.middleware.as_ref(), findings)
            },
        })
        .collect()
}

/// Who listens where, so far.
struct Taken<'a>(Vec<Listener<'a>>);

struct Listener<'a> {
    address: SocketAddr,
    protocols: Protocols,
    owner: String,
    /// None: it isn't written, but the default.
    at: Option<(FileId, &'a At<String>)>,
}

impl<'a> Taken<'a> {
    fn by_admin(written: &Merged<'a>) -> Self {
        let listener = |text: &str, at| {
            let address = value::socket_address(text).ok()?;
            let protocols = Protocols { tcp: true, udp: false };
            Some(Listener { address, protocols, owner: "the admin interface".to_owned(), at })
        };
        let list = written.admin.and_then(|(file, section)| Some((file, section.value.bind.as_ref()?)));
        Self(match list {
            Some((file, list)) => {
                list.items.iter().filter_map(|at| listener(&at.value, Some((file, at)))).collect()
            }
            None => listener(default::ADMIN, None).into_iter().collect(),
        })
    }

    fn find(&self, address: SocketAddr, protocols: Protocols) -> Option<&Listener<'a>> {
        let mut shared = self.0.iter().filter(|listener| listener.protocols.share(protocols));
        shared.find(|listener| overlap(listener.address, address))
    }
}

/// Whether one listener would get in the other's way. A wildcard is every address of its family; IPv6 listeners take
/// IPv6 only; port 0 is always a free one.
///
/// The gate relies on it: were `0.0.0.0:443` guarded and `10.0.0.1:443` open, it would guard the open one too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let wildcard = one_ip.is_unspecified() || other_ip.is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && one_ip.is_ipv4() == other_ip.is_ipv4()
        && (wildcard || one_ip == other_ip)
}

fn bind<'a>(
    item: &Item<'a, written::Entrypoint>,
    taken: &mut Taken<'a>,
    findings: &mut Findings,
) -> Vec<SocketAddr> {
    let Item { file, name, body } = *item;
    let Some(list) = body.bind.as_ref().filter(|list| !list.items.is_empty()) else {
        if !findings.lost(&format!("entrypoint.{}.bind", name.value)) {
            let span = body.bind.as_ref().map_or(&name.span, |list| &list.span);
            findings
                .error(
                    Code::Missing,
                    file,
                    span,
                    format!("entrypoint `{}` has no address to listen on", name.value),
                )
                .hint("write `bind = \"0.0.0.0:443\"`");
        }
        return Vec::new();
    };
    let what = format!("entrypoint `{}`", name.value);
    let protocols = passthrough::protocols(body);
    let mut bind = Vec::new();
    for at in &list.items {
        let Some(address) = globals::listen_address(file, &format!("{what}:"), at, findings) else {
            continue;
        };
        match taken.find(address, protocols) {
            Some(other) => {
                let (whose, taken) = (&other.owner, other.address);
                let message = if *whose == what {
                    format!("{what} listens twice on `{taken}`, as `{address}`")
                } else {
                    format!("{what} can't listen on `{address}`: {whose} listens on `{taken}`")
                };
                let finding = findings
                    .error(Code::AddressTaken, file, &at.span, message)
                    .hint("one of them needs another port");
                if let Some((other_file, other)) = other.at {
                    finding.related(other_file, &other.span, "taken here");
                }
            }
            None => taken.0.push(Listener { address, protocols, owner: what.clone(), at: Some((file, at)) }),
        }
        bind.push(address);
    }
    bind
}

fn allow(
    item: &Item<'_, written::Entrypoint>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Vec<AllowlistId> {
    let Some(list) = &item.body.allow else { return Vec::new() };
    if list.items.is_empty() && !findings.lost(&format!("entrypoint.{}.allow", item.name.value)) {
        let message = format!("entrypoint `{}`: `allow` is an empty list", item.name.value);
        findings
            .error(Code::EmptyList, item.file, &list.span, message)
            .hint("leave the key out to let anybody in, or name a list: `allow = [\"cloudflare\"]`");
    }
    let by = format!("entrypoint `{}` allows", item.name.value);
    lists(item.file, list, &by, written, findings)
}

fn shadow(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> bool {
    let Some(shadow) = item.body.shadow.as_ref().filter(|shadow| shadow.value) else { return false };
    let (name, path) = (&item.name.value, format!("entrypoint.{}.allow", item.name.value));
    if item.body.allow.is_none() && item.body.source_limit.is_none() && !findings.lost(&path) {
        let message =
            format!("entrypoint `{name}`: `shadow = true` without `allow` has nobody to judge packets by");
        findings
            .error(Code::Contradiction, item.file, &shadow.span, message)
            .hint("name the lists that are to be tried, `allow = [\"cloudflare\"]`, or take `shadow` out");
    } else {
        let message =
            format!("entrypoint `{name}` is shadowed: nothing is dropped there, whatever `allow` says");
        findings
            .warning(Code::Shadowed, item.file, &shadow.span, message)
            .hint("`weir status` shows what would be; take `shadow` out when it is what you want");
    }
    true
}

fn lists(
    file: FileId,
    list: &List,
    by: &str,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Vec<AllowlistId> {
    let mut ids = Vec::new();
    for name in &list.items {
        let id = written.allowlists.refer(file, name, by, Code::NoSuchAllowlist, findings).map(AllowlistId);
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    ids
}

fn client_ip(
    item: &Item<'_, written::Entrypoint>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<ClientIpSource> {
    let client_ip = item.body.client_ip.as_ref()?;
    let what = format!("entrypoint `{}`: client_ip", item.name.value);
    let path = format!("entrypoint.{}.client_ip", item.name.value);
    let trust = match &client_ip.value.trust {
        Some(list) if !list.items.is_empty() => {
            lists(item.file, list, &format!("{what} trusts"), written, findings)
        }
        empty => {
            if !findings.lost(&format!("{path}.trust")) {
                let span = empty.as_ref().map_or(&client_ip.span, |list| &list.span);
                findings
                    .error(
                        Code::Missing,
                        item.file,
                        span,
                        format!("{what} trusts nobody: the header would never be used"),
                    )
                    .hint("name the allowlists of those who set it: `trust = [\"cloudflare\"]`");
            }
            Vec::new()
        }
    };
    let Some(header) = &client_ip.value.header else {
        if !findings.lost(&format!("{path}.header")) {
            findings
                .error(Code::Missing, item.file, &client_ip.span, format!("{what} has no `header`"))
                .hint("Cloudflare's is `header = \"CF-Connecting-IP\"`");
        }
        return None;
    };
    let Ok(name) = header.value.parse::<HeaderName>() else {
        let message = format!("{what}: {} is not a header's name", quoted(&header.value));
        findings
            .error(Code::BadHeader, item.file, &header.span, message)
            .hint("Cloudflare's is `CF-Connecting-IP`");
        return None;
    };
    Some(ClientIpSource { header: name, trust })
}

fn proxy_protocol(
    item: &Item<'_, written::Entrypoint>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<ProxyProtocol> {
    let setting = item.body.proxy_protocol.as_ref()?;
    let what = format!("entrypoint `{}`: proxy_protocol", item.name.value);
    let from = match &setting.value.from {
        Some(list) if !list.items.is_empty() => {
            lists(item.file, list, &format!("{what} is taken from"), written, findings)
        }
        empty => {
            if !findings.lost(&format!("entrypoint.{}.proxy_protocol.from", item.name.value)) {
                let span = empty.as_ref().map_or(&setting.span, |list| &list.span);
                findings
                    .error(Code::Missing, item.file, span, format!("{what} is taken from nobody"))
                    .hint("name the allowlists of the proxies that speak it: `from = [\"balancers\"]`");
            }
            Vec::new()
        }
    };
    let timeout = scalar::duration(
        item.file,
        &format!("{what}.timeout"),
        setting.value.timeout.as_ref(),
        default::PROXY_TIMEOUT,
        100 * MILLISECOND..=MINUTE,
        findings,
    );
    Some(ProxyProtocol { from, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_where_the_kernel_would_refuse_or_share() {
        for (one, other, expected) in [
            ("10.0.0.1:443", "10.0.0.1:443", true),
            ("0.0.0.0:443", "10.0.0.1:443", true),
            ("10.0.0.1:443", "0.0.0.0:443", true),
            ("[::]:443", "[2001:db8::1]:443", true),
            ("0.0.0.0:443", "[::]:443", false),
            ("10.0.0.1:443", "10.0.0.2:443", false),
            ("0.0.0.0:443", "0.0.0.0:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("[::ffff:10.0.0.1]:443", "10.0.0.1:443", true),
            ("[::ffff:10.0.0.1]:443", "0.0.0.0:443", true),
        ] {
            assert_eq!(overlap(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
        }
    }
}
