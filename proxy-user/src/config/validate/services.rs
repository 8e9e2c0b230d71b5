//! `[service.NAME]`

use super::{
    balancing, breaking, health,
    merge::{Item, Merged},
    pages::by_status,
    passthrough,
    pool::pool,
    retry,
    scalar::{self, DAY, HOUR, MILLISECOND, MINUTE, SECOND},
    tls, variants,
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Balancing, PageId, ServerProtocol, Service, Timeouts, WhenAllDown},
        value::{nearest, quoted},
        written::{self, At},
    },
    proxy_protocol,
};

pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Service> {
    written
        .services
        .items
        .iter()
        .map(|item| Service {
            name: item.name.value.as_str().into(),
            made_of: variants::of_service(item, written, findings),
            servers: match variants::is_composite(item.body) {
                true => Vec::new(),
                false => balancing::servers(item, findings),
            },
            balancing: match variants::is_composite(item.body) {
                true => Balancing::default(),
                false => balancing::balancing(item, findings),
            },
            tls: tls::service(item, findings),
            protocol: protocol(item),
            send_proxy: item.body.send_proxy.as_ref().map(|version| match version.value {
                written::ProxyVersion::V1 => proxy_protocol::Version::V1,
                written::ProxyVersion::V2 => proxy_protocol::Version::V2,
            }),
            offload: passthrough::offload(item),
            source: passthrough::source(item, findings),
            health: item.body.health.as_ref().map(|check| health::health(item, check, findings)),
            eject: item.body.eject.as_ref().map(|eject| breaking::eject(item, eject, findings)),
            breaker: item.body.breaker.as_ref().map(|breaker| breaking::breaker(item, breaker, findings)),
            panic: panic(item, findings),
            timeouts: timeouts(item, findings),
            pool: pool(item, findings),
            retry: retry::retry(item, findings),
            hedge: retry::hedge(item, findings),
            when_all_down: when_all_down(item, written, findings),
            pages: by_status::pages(
                item.file,
                &format!("service `{}`", item.name.value),
                item.body.pages.as_ref(),
                written,
                findings,
            ),
        })
        .collect()
}

fn protocol(item: &Item<'_, written::Service>) -> ServerProtocol {
    match item.body.protocol.as_ref().map(|protocol| protocol.value) {
        Some(written::ServerProtocol::Http1) => ServerProtocol::Http1,
        Some(written::ServerProtocol::Http2) => ServerProtocol::Http2,
        Some(written::ServerProtocol::Auto) | None => ServerProtocol::Auto,
    }
}

fn timeouts(item: &Item<'_, written::Service>, findings: &mut Findings) -> Timeouts {
    let written = item.body.timeouts.as_ref().map(|timeouts| &timeouts.value);
    let connect = written.and_then(|timeouts| timeouts.connect.as_ref());
    let first_byte = written.and_then(|timeouts| timeouts.first_byte.as_ref());
    let unacknowledged = written.and_then(|timeouts| timeouts.unacknowledged.as_ref());
    let idle = written.and_then(|timeouts| timeouts.idle.as_ref());
    let lifetime = written.and_then(|timeouts| timeouts.lifetime.as_ref());
    let what = |key: &str| format!("service `{}`: timeouts.{key}", item.name.value);
    let file = item.file;
    Timeouts {
        connect: scalar::duration(
            file,
            &what("connect"),
            connect,
            default::CONNECT,
            MILLISECOND..=MINUTE,
            findings,
        ),
        first_byte: scalar::duration(
            file,
            &what("first_byte"),
            first_byte,
            default::FIRST_BYTE,
            MILLISECOND..=DAY,
            findings,
        ),
        unacknowledged: scalar::duration(
            file,
            &what("unacknowledged"),
            unacknowledged,
            default::UNACKNOWLEDGED,
            SECOND..=HOUR,
            findings,
        ),
        idle: scalar::duration(
            file,
            &what("idle"),
            idle,
            default::PASSTHROUGH_IDLE,
            SECOND..=30 * DAY,
            findings,
        ),
        lifetime: lifetime.map(|_| {
            // It has no default: what is refused stops the rest anyway.
            let range = SECOND..=365 * DAY;
            scalar::duration(file, &what("lifetime"), lifetime, default::PASSTHROUGH_IDLE, range, findings)
        }),
    }
}

fn panic(item: &Item<'_, written::Service>, findings: &mut Findings) -> u8 {
    let what = format!("service `{}`: panic", item.name.value);
    breaking::share(item.file, &what, item.body.panic.as_ref(), 0..=100, findings).unwrap_or_default()
}

fn when_all_down(
    item: &Item<'_, written::Service>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> WhenAllDown {
    let by_default = At { span: item.name.span.clone(), value: default::WHEN_ALL_DOWN.to_owned() };
    let setting = item.body.when_all_down.as_ref().unwrap_or(&by_default);
    let name = &item.name.value;
    if setting.value == "try" {
        return WhenAllDown::Try;
    }
    if let Some(page) = setting.value.strip_prefix("page:") {
        // The name begins behind the quote and `page:`.
        let behind = setting.span.start + "\"page:".len();
        let span = behind.min(setting.span.end)..setting.span.end.saturating_sub(1).max(behind);
        let page = At { span, value: page.to_owned() };
        let by = format!("service `{name}`: when_all_down wants");
        let id = written.pages.refer(item.file, &page, &by, Code::NoSuchPage, findings);
        return WhenAllDown::Page(PageId(id.unwrap_or_default()));
    }
    if setting.value.starts_with("service:") {
        let message =
            format!("service `{name}`: falling back to another service is not yet supported in this version");
        findings
            .error(Code::NotYetSupported, item.file, &setting.span, message)
            .hint("write `page:maintenance` or `try`");
        return WhenAllDown::Try;
    }
    let message =
        format!("service `{name}`: when_all_down {} is neither a page nor `try`", quoted(&setting.value));
    let finding = findings.error(Code::WrongValue, item.file, &setting.span, message);
    match written.pages.id(&setting.value) {
        Some(_) => finding.hint(format!("a page is written `page:{}`", setting.value)),
        None => match nearest(&setting.value, ["try", default::WHEN_ALL_DOWN]) {
            Some(near) => finding.suggest(Some(near)),
            None => finding.hint("write `page:maintenance` or `try`"),
        },
    };
    WhenAllDown::Try
}
