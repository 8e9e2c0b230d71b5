//! What changes in logs, in tracing and in what metrics are pushed.

use super::{Keys, authorities, fingerprint, joined, show, show_size};
use crate::config::{
    model::{
        AccessLog, AccessLogFormat, AccessLogTarget, Collector, Filter, Log, Metrics, OtlpProtocol,
        ParentTrust, Redact, ServiceTls, Syslog, SyslogFormat, Tracing, Transport,
    },
    value::show_share,
};

pub fn log(Log { access: _, level, kernel, redact: Redact { query, headers } }: &Log) -> Keys {
    let kernel = if *kernel { "debug" } else { "off" };
    [
        ("level", (*level).to_owned()),
        ("kernel", kernel.to_owned()),
        ("redact.query", joined(query)),
        ("redact.headers", joined(headers)),
    ]
    .into()
}

pub fn access_log(one: &AccessLog) -> Keys {
    let AccessLog { name: _, to, format, filter, request_headers, response_headers } = one;
    let Filter { status, routes, paths, slower_than, sample } = filter;
    let format = match format {
        AccessLogFormat::Json => "json",
        AccessLogFormat::Combined => "combined",
        AccessLogFormat::Template(template) => &template.text,
    };
    let range = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let mut keys: Keys = [
        ("format", format.to_owned()),
        ("status", joined(status.iter().map(range))),
        ("routes", joined(routes)),
        ("paths", joined(paths)),
        ("slower_than", slower_than.map_or_else(String::new, show)),
        ("sample", show_share(*sample)),
        ("request_headers", joined(request_headers)),
        ("response_headers", joined(response_headers)),
    ]
    .into();
    target(to, &mut keys);
    // What isn't asked for isn't told.
    keys.retain(|_, value| !value.is_empty());
    keys
}

fn target(to: &AccessLogTarget, keys: &mut Keys) {
    keys.insert("to", to.to_string());
    match to {
        AccessLogTarget::Stdout | AccessLogTarget::Journald(_) => {}
        AccessLogTarget::File { path: _, rotate } => {
            if let Some(rotate) = rotate {
                keys.insert("rotate.size", rotate.size.map_or_else(String::new, show_size));
                keys.insert("rotate.age", rotate.age.map_or_else(String::new, show));
                keys.insert("rotate.keep", rotate.keep.to_string());
            }
        }
        AccessLogTarget::Syslog(Syslog { transport, format, facility, tag }) => {
            let format = match format {
                SyslogFormat::Rfc5424 => "rfc5424",
                SyslogFormat::Rfc3164 => "rfc3164",
            };
            keys.insert("syslog.format", format.to_owned());
            keys.insert("syslog.facility", format!("{facility:?}").to_lowercase());
            keys.insert("syslog.tag", tag.clone());
            if let Transport::Tls { tls: ServiceTls { authorities: trusted, .. }, .. } = transport {
                keys.insert("syslog.ca", authorities(trusted));
            }
        }
    }
}

pub fn tracing(Tracing { collector, sample, parent }: &Tracing) -> Keys {
    let parent = match parent {
        ParentTrust::Trusted => "trusted",
        ParentTrust::Always => "always",
        ParentTrust::Never => "never",
    };
    let mut keys = self::collector(collector);
    keys.insert("sample", show_share(*sample));
    keys.insert("parent", parent.to_owned());
    keys
}

pub fn metrics(Metrics { collector, every }: &Metrics) -> Keys {
    let mut keys = self::collector(collector);
    keys.insert("every", show(*every));
    keys
}

fn collector(one: &Collector) -> Keys {
    let Collector { endpoint, tls, protocol, service, attributes, headers, timeout } = one;
    let protocol = match protocol {
        OtlpProtocol::Grpc => "grpc",
        OtlpProtocol::Http => "http",
    };
    let mut keys: Keys = [
        ("endpoint", endpoint.to_string()),
        ("protocol", protocol.to_owned()),
        ("service", service.clone()),
        ("attributes", joined(attributes.iter().map(|(name, value)| format!("{name}={value}")))),
        // They are secrets: that they differ is all that is told.
        (
            "headers",
            joined(headers.iter().map(|(name, value)| format!("{name} ({})", fingerprint(value.as_bytes())))),
        ),
        ("timeout", show(*timeout)),
    ]
    .into();
    if let Some(ServiceTls { authorities: trusted, .. }) = tls {
        keys.insert("ca", authorities(trusted));
    }
    keys
}
