//! `[service.NAME]`

mod drain_on;

use super::{
    balancing,
    merge::{Item, Merged},
    pages::by_status,
    pool::pool,
    scalar::{self, DAY, HOUR, MILLISECOND, MINUTE},
    tls, variants,
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Balancing, HealthCheck, PageId, ServerProtocol, Service, Timeouts, WhenAllDown},
        value::{self, nearest, quoted},
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
            health: item.body.health.as_ref().map(|health| self::health(item, health, findings)),
            timeouts: timeouts(item, findings),
            pool: pool(item, findings),
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

fn health(
    item: &Item<'_, written::Service>,
    health: &At<written::Health>,
    findings: &mut Findings,
) -> HealthCheck {
    let file = item.file;
    let name = &item.name.value;
    let what = format!("service `{name}`: health");
    let every_default = default::HEALTH_EVERY;
    let body = &health.value;
    let setting = format!("{what}.every");
    let faults_before = findings.count();
    let every = scalar::duration(
        file,
        &setting,
        body.every.as_ref(),
        every_default,
        10 * MILLISECOND..=HOUR,
        findings,
    );
    let every_is_known = findings.count() == faults_before;
    let setting = format!("{what}.timeout");
    let default_timeout = default::HEALTH_TIMEOUT;
    let mut timeout = scalar::duration(
        file,
        &setting,
        body.timeout.as_ref(),
        default_timeout,
        MILLISECOND..=HOUR,
        findings,
    );
    match &body.timeout {
        None => timeout = timeout.min(every),
        Some(written) if timeout > every && every_is_known => {
            let (timeout, every) = (value::show(timeout), value::show(every));
            let message = format!("{what}: a probe may take {timeout}, but the next one comes after {every}");
            findings
                .error(Code::Contradiction, file, &written.span, message)
                .hint("`timeout` can't be longer than `every`");
        }
        Some(_) => {}
    }
    HealthCheck {
        path: probe_path(item, health, findings),
        host: body.host.as_ref().and_then(|host| probe_host(item, host, findings)),
        every,
        timeout,
        fall: scalar::count(
            file,
            &format!("{what}.fall"),
            body.fall.as_ref(),
            default::HEALTH_FALL,
            1..=100,
            findings,
        ),
        rise: scalar::count(
            file,
            &format!("{what}.rise"),
            body.rise.as_ref(),
            default::HEALTH_RISE,
            1..=100,
            findings,
        ),
        drain: drain_on::of(item, body, findings),
    }
}

fn probe_path(
    item: &Item<'_, written::Service>,
    health: &At<written::Health>,
    findings: &mut Findings,
) -> http::uri::PathAndQuery {
    let root = http::uri::PathAndQuery::from_static("/");
    let name = &item.name.value;
    let Some(written) = &health.value.path else {
        if !findings.lost(&format!("service.{name}.health.path")) {
            findings
                .error(
                    Code::Missing,
                    item.file,
                    &health.span,
                    format!("service `{name}`: `health` has no `path`"),
                )
                .hint("write what to ask for: `path = \"/ping\"`");
        }
        return root;
    };
    let visible = written.value.chars().all(|c| c.is_ascii_graphic() && c != '#');
    match written.value.parse() {
        Ok(path) if visible && written.value.starts_with('/') => path,
        _ => {
            let message = format!("service `{name}`: health.path {} is not a path", quoted(&written.value));
            findings
                .error(Code::BadPath, item.file, &written.span, message)
                .hint("it begins with `/`, for instance `/ping` or `/health?deep=1`");
            root
        }
    }
}

fn probe_host(
    item: &Item<'_, written::Service>,
    host: &At<String>,
    findings: &mut Findings,
) -> Option<http::HeaderValue> {
    let authority =
        host.value.parse::<http::uri::Authority>().ok().filter(|host| !host.as_str().contains('@'));
    let header = authority.and_then(|host| http::HeaderValue::from_str(host.as_str()).ok());
    if header.is_none() {
        let message =
            format!("service `{}`: health.host {} is not a host", item.name.value, quoted(&host.value));
        findings
            .error(Code::BadHeader, item.file, &host.span, message)
            .hint("it is a name, with a port if need be: `app.example.com`");
    }
    header
}

fn timeouts(item: &Item<'_, written::Service>, findings: &mut Findings) -> Timeouts {
    let written = item.body.timeouts.as_ref().map(|timeouts| &timeouts.value);
    let connect = written.and_then(|timeouts| timeouts.connect.as_ref());
    let first_byte = written.and_then(|timeouts| timeouts.first_byte.as_ref());
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
    }
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
