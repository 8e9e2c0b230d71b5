//! Where an access log goes: a word, a path or a URL.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::super::merge::Item;
use crate::{
    access_log::sink::{JOURNALD, SYSLOG},
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{AccessLogTarget, Facility, Rotate, ServerAt, ServiceTls, Syslog, SyslogFormat, Transport},
        source::FileId,
        value::{self, nearest, quoted},
        written::{self, At},
    },
    tls::certificates::{self, ServerAuthorities},
};

/// A place, before what else is written about it.
#[derive(Debug)]
pub enum Place {
    Off,
    Stdout,
    File(PathBuf),
    Journald(PathBuf),
    Syslog(Transport),
}

pub fn place(
    file: FileId,
    what: &str,
    written: &At<String>,
    words: &[&'static str],
    findings: &mut Findings,
) -> Option<Place> {
    let text = &*written.value;
    Some(match text {
        "off" if words.contains(&"off") => Place::Off,
        "stdout" => Place::Stdout,
        "journald" => Place::Journald(JOURNALD.into()),
        "syslog" => Place::Syslog(Transport::Unix(SYSLOG.into())),
        _ => {
            if let Some(path) = text.strip_prefix("journald:").filter(|path| path.starts_with('/')) {
                return Some(Place::Journald(path.into()));
            }
            if let Some(remote) = text.strip_prefix("syslog+") {
                return transport(file, what, written, remote, findings).map(Place::Syslog);
            }
            // A bare word is a typing error rather than a file's name.
            if !text.contains('/') {
                let words = words.join("` nor `");
                let message = format!("{what} is {}, which is neither `{words}` nor a path", quoted(text));
                let finding = findings.error(Code::WrongValue, file, &written.span, message);
                match nearest(text, ["stdout", "off", "journald", "syslog"]) {
                    Some(near) => finding.suggest(Some(near)),
                    None => finding.hint(format!("for a file beside this one, write `./{text}`")),
                };
                return None;
            }
            Place::File(findings.sources.resolve(file, text))
        }
    })
}

fn transport(
    file: FileId,
    what: &str,
    written: &At<String>,
    remote: &str,
    findings: &mut Findings,
) -> Option<Transport> {
    if let Some(path) = remote.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        return Some(Transport::Unix(path.into()));
    }
    let at = |text: &str| match value::server(text) {
        Ok(ServerAt::Address(address)) => Some((address.ip().to_string(), address.port())),
        Ok(ServerAt::Name { host, port, .. }) => Some((host.to_string(), port)),
        // One place has one address.
        Ok(ServerAt::Service { .. }) | Err(_) => None,
    };
    let (kind, place) = remote.split_once("://").unwrap_or_default();
    match (kind, at(place)) {
        ("udp", Some((host, port))) => Some(Transport::Udp { host, port }),
        ("tcp", Some((host, port))) => Some(Transport::Tcp { host, port }),
        ("tls", Some((host, port))) => {
            let server_name = ServerName::try_from(host.clone()).ok()?;
            let tls = ServiceTls { server_name, authorities: ServerAuthorities::System, certificate: None };
            Some(Transport::Tls { host, port, tls })
        }
        _ => {
            let message = format!("{what}: {} is no place for a syslog", quoted(&written.value));
            findings.error(Code::BadAddress, file, &written.span, message).hint(
                "write `syslog+unix:/run/log.sock`, `syslog+udp://192.0.2.1:514`, `syslog+tcp://…:601` or \
                 `syslog+tls://logs.example.com:6514`",
            );
            None
        }
    }
}

// === impl Place ===

impl Place {
    /// As it is where no more can be written about it; `None`: nowhere.
    pub fn unadorned(self) -> Option<AccessLogTarget> {
        Some(match self {
            Self::Off => return None,
            Self::Stdout => AccessLogTarget::Stdout,
            Self::File(path) => AccessLogTarget::File { path, rotate: None },
            Self::Journald(path) => AccessLogTarget::Journald(path),
            Self::Syslog(transport) => AccessLogTarget::Syslog(Syslog {
                format: usual(&transport),
                transport,
                facility: Facility::Local0,
                tag: default::SYSLOG_TAG.to_owned(),
            }),
        })
    }

    /// With what its section says.
    pub fn with(
        self,
        item: &Item<'_, written::AccessLog>,
        rotate: Option<Rotate>,
        findings: &mut Findings,
    ) -> Option<AccessLogTarget> {
        let misplaced = [
            ("rotate", item.body.rotate.as_ref().map(|at| &at.span), matches!(self, Self::File(_)), "a file"),
            (
                "syslog",
                item.body.syslog.as_ref().map(|at| &at.span),
                matches!(self, Self::Syslog(_)),
                "a syslog",
            ),
        ];
        for (key, span, fits, kind) in misplaced {
            if let (Some(span), false) = (span, fits) {
                let message = format!(
                    "access_log `{}`: `{key}` is for {kind}, and this one doesn't go to {kind}",
                    item.name.value
                );
                findings
                    .error(Code::Contradiction, item.file, span, message)
                    .hint(format!("take `{key}` out"));
            }
        }
        let mut target = self.unadorned()?;
        match &mut target {
            AccessLogTarget::File { rotate: how, .. } => *how = rotate,
            AccessLogTarget::Syslog(syslog) => {
                if let Some(written) = &item.body.syslog {
                    adorn(syslog, item, &written.value, findings);
                }
            }
            AccessLogTarget::Stdout | AccessLogTarget::Journald(_) => {}
        }
        Some(target)
    }
}

/// Local daemons read the older format; rsyslog's socket misreads the newer one unless it is told to expect it.
fn usual(transport: &Transport) -> SyslogFormat {
    match transport {
        Transport::Unix(_) => SyslogFormat::Rfc3164,
        Transport::Udp { .. } | Transport::Tcp { .. } | Transport::Tls { .. } => SyslogFormat::Rfc5424,
    }
}

fn adorn(
    syslog: &mut Syslog,
    item: &Item<'_, written::AccessLog>,
    written: &written::Syslog,
    findings: &mut Findings,
) {
    let (file, name) = (item.file, &item.name.value);
    if let Some(format) = &written.format {
        syslog.format = format.value;
    }
    if let Some(facility) = &written.facility {
        syslog.facility = facility.value;
    }
    if let Some(tag) = &written.tag {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=32).contains(&tag.value.len()) || !tag.value.chars().all(sound) {
            let message = format!("access_log `{name}`: syslog.tag {} can't be a tag", quoted(&tag.value));
            findings
                .error(Code::WrongValue, file, &tag.span, message)
                .hint("it has 1 to 32 letters, digits, `-`, `_` and `.`");
        }
        syslog.tag.clone_from(&tag.value);
    }
    let Some(ca) = &written.ca else { return };
    let Transport::Tls { tls, .. } = &mut syslog.transport else {
        let message = format!("access_log `{name}`: `syslog.ca` without `syslog+tls` does nothing");
        findings.error(Code::Contradiction, file, &ca.span, message).hint("take `ca` out");
        return;
    };
    let path = findings.sources.resolve(file, &ca.value);
    findings.watch(&path);
    match certificates::read_authorities(&path) {
        Ok(roots) => tls.authorities = ServerAuthorities::Own(roots),
        Err(fault) => {
            let message = format!("access_log `{name}`: {}", fault.sentence);
            findings.error(Code::BadAuthority, file, &ca.span, message).maybe_hint(fault.hint);
        }
    }
}
