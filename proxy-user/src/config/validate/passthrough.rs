//! What entrypoints, services and `[kernel]` say of passthrough: `protocol`, `offload`, `source` and `nat_ports`.

use std::ops::Range;

use super::{
    merge::{Item, Merged},
    routes::carried::Placed,
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Carries, Config, KernelMode, MadeOf, NatPorts, Offload, ServiceId, SourceAddress},
    value::{self, quoted},
    written,
};

/// With fewer, a minute's wait for each makes a service of them that takes hardly any connections.
const FEWEST: u32 = 256;
/// What is below belongs to services of the host.
const LOWEST: u16 = 1024;

/// What an entrypoint carries. Settings that mean nothing there are told, each at its place.
pub fn carries(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Carries {
    let body = item.body;
    let Some(protocol) = &body.protocol else { return Carries::Http };
    let carries = match protocol.value {
        written::Protocol::Http => return Carries::Http,
        written::Protocol::Tcp => Carries::Tcp,
        written::Protocol::Udp => Carries::Udp,
    };
    let mut refused: Vec<(&str, Option<&Range<usize>>)> = vec![
        ("client_ip", body.client_ip.as_ref().map(|one| &one.span)),
        ("tls", body.tls.as_ref().map(|one| &one.span)),
        ("hsts", body.hsts.as_ref().map(|one| &one.span)),
        ("http3", body.http3.as_ref().map(|one| &one.span)),
        ("redirect", body.redirect.as_ref().map(|one| &one.span)),
        ("redirect_status", body.redirect_status.as_ref().map(|one| &one.span)),
        ("redirect_except", body.redirect_except.as_ref().map(|one| &one.span)),
        ("limits", body.limits.as_ref().map(|one| &one.span)),
        ("middleware", body.middleware.iter().flat_map(|links| &links.items).next().map(link)),
    ];
    if carries == Carries::Udp {
        refused.extend([
            ("proxy_protocol", body.proxy_protocol.as_ref().map(|one| &one.span)),
            ("syn_cookies", body.syn_cookies.as_ref().map(|one| &one.span)),
        ]);
    }
    for (key, span) in refused {
        let Some(span) = span else { continue };
        let message = format!(
            "entrypoint `{}`: `{key}` means nothing where `protocol` is `{}`: its bytes are passed through untouched",
            item.name.value,
            carries.name()
        );
        findings
            .error(Code::Contradiction, item.file, span, message)
            .related(item.file, &protocol.span, "because of this")
            .hint("take it out, or give the settings of HTTP an entrypoint of their own");
    }
    carries
}

pub fn link(link: &written::Link) -> &Range<usize> {
    match link {
        written::Link::Name(name) => &name.span,
        written::Link::Inline(span, _) => span,
    }
}

/// By what it can be reached there.
pub fn protocols(body: &written::Entrypoint) -> Protocols {
    let protocol = body.protocol.as_ref().map(|protocol| protocol.value);
    let http3 = body.http3.as_ref().is_some_and(|http3| http3.value);
    let udp = protocol == Some(written::Protocol::Udp);
    Protocols { tcp: !udp, udp: udp || http3 }
}

/// See [`protocols`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    pub tcp: bool,
    pub udp: bool,
}

impl Protocols {
    pub fn share(self, other: Self) -> bool {
        (self.tcp && other.tcp) || (self.udp && other.udp)
    }
}

pub fn offload(item: &Item<'_, written::Service>) -> Offload {
    match item.body.offload.as_ref().map(|offload| offload.value) {
        Some(written::Offload::Off) => Offload::Off,
        Some(written::Offload::SpliceKernel) => Offload::SpliceKernel,
        Some(written::Offload::Auto) | None => Offload::Auto,
    }
}

/// Only the kernel can keep an address that isn't ours.
pub fn source(item: &Item<'_, written::Service>, findings: &mut Findings) -> SourceAddress {
    let body = item.body;
    let Some(source) = body.source.as_ref().filter(|source| source.value == written::Source::Keep) else {
        return SourceAddress::Replace;
    };
    let off = body.offload.as_ref().filter(|offload| offload.value == written::Offload::Off);
    let others = [
        ("offload = \"off\"", off.map(|offload| &offload.span)),
        ("send_proxy", body.send_proxy.as_ref().map(|version| &version.span)),
    ];
    for (key, span) in others {
        let Some(span) = span else { continue };
        let message = format!(
            "service `{}`: `source = \"keep\"` and `{key}`: only the kernel keeps the client's address, and that goes through \
             the daemon",
            item.name.value
        );
        findings
            .error(Code::Contradiction, item.file, &source.span, message)
            .related(item.file, span, "because of this")
            .hint("take one of the two out");
    }
    SourceAddress::Keep
}

/// Datagrams have no beginning that could tell whose they are; and where the kernel is not asked, nobody can keep an address.
pub fn datagrams(placed: &[Placed<'_>], config: &Config, findings: &mut Findings) {
    for Placed { route, file, at } in placed {
        let udp = route.entrypoints.iter().map(|id| &config.entrypoints[id.0]);
        let Some(udp) = udp.into_iter().find(|entrypoint| entrypoint.carries == Carries::Udp) else {
            continue;
        };
        let Some((why, hint)) = unfit_for_datagrams(config, route.service) else { continue };
        let span = at.value.passthrough.as_ref().map_or(&at.span, |one| &one.span);
        let message =
            format!("route {}: entrypoint `{}` carries UDP, and {why}", quoted(&route.name), udp.name);
        findings.error(Code::Contradiction, *file, span, message).hint(hint);
    }
}

fn unfit_for_datagrams(config: &Config, id: ServiceId) -> Option<(String, &'static str)> {
    // A name that leads nowhere was reported already.
    let service = config.services.get(id.0)?;
    if service.send_proxy.is_some() {
        let why = format!("service `{}` wants the PROXY protocol (`send_proxy`)", service.name);
        return Some((why, "take `send_proxy` out: datagrams have no place for it"));
    }
    let no_kernel = if config.kernel.mode == KernelMode::Off {
        Some("`kernel.mode` is `off`")
    } else {
        config.kernel.interfaces.is_empty().then_some("`kernel.interfaces` names none")
    };
    if let (SourceAddress::Keep, Some(no_kernel)) = (service.source, no_kernel) {
        let why = format!(
            "service `{}` wants to see the client's address (`source = \"keep\"`), which only the kernel keeps, and {no_kernel}",
            service.name
        );
        return Some((
            why,
            "name the interface that clients come in by, `interfaces = [\"eth0\"]`, or take `source` out",
        ));
    }
    let parts = service.made_of.iter().flat_map(MadeOf::parts);
    parts.into_iter().find_map(|part| unfit_for_datagrams(config, part))
}

pub fn nat_ports(written: &Merged<'_>, findings: &mut Findings) -> NatPorts {
    let usual = parse(default::NAT_PORTS).unwrap_or(NatPorts { first: LOWEST, last: u16::MAX });
    let setting = written.kernel.and_then(|(file, section)| Some((file, section.value.nat_ports.as_ref()?)));
    let ports = match setting {
        None => usual,
        Some((file, setting)) => {
            let what = format!("kernel.nat_ports: {}", quoted(&setting.value));
            match parse(&setting.value) {
                None => {
                    findings
                        .error(
                            Code::WrongValue,
                            file,
                            &setting.span,
                            format!("{what} is not a range of ports"),
                        )
                        .hint(format!("write the first and the last one: `{}`", default::NAT_PORTS));
                    return usual;
                }
                Some(ports) if ports.first < LOWEST || ports.count() < FEWEST => {
                    findings
                        .error(Code::OutOfRange, file, &setting.span, format!("{what} is out of range"))
                        .hint(format!("it lies between {LOWEST} and 65535, and has at least {FEWEST} ports"));
                    return usual;
                }
                Some(ports) => ports,
            }
        }
    };
    for item in &written.entrypoints.items {
        let binds = item.body.bind.iter().flat_map(|list| &list.items);
        for at in binds {
            let Ok(address) = value::socket_address(&at.value) else { continue };
            // Without passthrough in the file the ports are of no use, and the default stands in nobody's way.
            if !ports.contains(address.port()) || (setting.is_none() && !passes_through(written)) {
                continue;
            }
            let message = format!(
                "entrypoint `{}` listens on port {}, which is one of `kernel.nat_ports` ({ports})",
                item.name.value,
                address.port()
            );
            let hint = "these ports are for connections to servers: choose another range, or another port to listen on";
            let finding = findings.error(Code::AddressTaken, item.file, &at.span, message).hint(hint);
            if let Some((file, setting)) = setting {
                finding.related(file, &setting.span, "the range");
            }
        }
    }
    ports
}

fn passes_through(written: &Merged<'_>) -> bool {
    written.entrypoints.items.iter().any(|item| {
        matches!(
            item.body.protocol.as_ref().map(|protocol| protocol.value),
            Some(written::Protocol::Tcp | written::Protocol::Udp)
        )
    })
}

fn parse(text: &str) -> Option<NatPorts> {
    let (first, last) = text.split_once('-')?;
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let ports = NatPorts { first: port(first)?, last: port(last)? };
    (ports.first <= ports.last).then_some(ports)
}
