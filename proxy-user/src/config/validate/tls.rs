//! `tls` of entrypoints ([`entrypoint`]) and of services ([`service`]).

mod service;

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use super::{
    acme,
    merge::{Item, Merged},
    scalar::{self, DAY},
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Alpn, CipherSuites, ClientAuth, EntrypointTls, HostTls, Need, TlsVersion, UnknownHost},
        value::{self, quoted},
        written::{self, At},
    },
    tls::{
        certificates::{self, Certificates, ClientAuthorities},
        report,
    },
};

pub use service::service;

type Entrypoint<'a> = Item<'a, written::Entrypoint>;

pub fn entrypoint(
    item: &Entrypoint<'_>,
    tls: &At<written::EntrypointTls>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<EntrypointTls> {
    let (file, name, body) = (item.file, &item.name.value, &tls.value);
    let what = |key: &str| format!("entrypoint `{name}`: tls.{key}");
    let expiry_warning = scalar::duration(
        file,
        &what("expiry_warning"),
        body.expiry_warning.as_ref(),
        default::EXPIRY_WARNING,
        std::time::Duration::ZERO..=365 * DAY,
        findings,
    );
    let clients = clients(item, body, findings);
    let hosts = hosts(item, body, findings);
    let (min_version, ciphers) = versions(item, body, findings);
    let alpn = alpn(item, body, findings);
    let client_headers = client_headers(item, body, &clients, &hosts, findings);
    let acme = acme::names(item, body, written, findings);
    let store = from_store(item, tls, written, findings);
    let certificates = certificates(item, tls, expiry_warning, findings)?;
    Some(EntrypointTls {
        certificates: Arc::new(certificates),
        store,
        acme,
        unknown_host: match &body.unknown_host {
            Some(At { value: written::UnknownHost::Refuse, .. }) => UnknownHost::Refuse,
            _ => UnknownHost::Default,
        },
        expiry_warning,
        min_version,
        ciphers,
        alpn,
        clients,
        client_headers,
        hosts,
    })
}

/// What is written for the certificates in the fleet's store.
const STORE: &str = "store";

/// Whether those in the fleet's store are shown too.
fn from_store(
    item: &Entrypoint<'_>,
    tls: &At<written::EntrypointTls>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> bool {
    let listed = tls.value.certificates.iter().flat_map(|list| &list.items);
    let Some(named) = listed.into_iter().find(|path| path.value == STORE) else { return false };
    let keys = written.fleet.is_some_and(|(_, fleet)| fleet.value.key_file.is_some());
    if !keys && !findings.lost("fleet.key_file") {
        let message = format!(
            "entrypoint `{}`: tls.certificates names the fleet's store, and `[fleet]` has no `key_file`",
            item.name.value
        );
        findings.error(Code::Missing, item.file, &named.span, message).hint(
            "what is sealed there can't be opened without it: `key_file = \"/etc/weir/fleet.key\"`; a folder of that name is `./store`",
        );
    }
    keys
}

fn certificates(
    item: &Entrypoint<'_>,
    tls: &At<written::EntrypointTls>,
    warning: std::time::Duration,
    findings: &mut Findings,
) -> Option<Certificates> {
    let (file, name) = (item.file, &item.name.value);
    let Some(written) = tls.value.certificates.as_ref().filter(|list| !list.items.is_empty()) else {
        if tls.value.certificates.is_none() && tls.value.acme.is_some() {
            return Some(Certificates::default());
        }
        if !findings.lost(&format!("entrypoint.{name}.tls.certificates")) {
            let message = format!("entrypoint `{name}`: `tls` has no `certificates`");
            findings
                .error(Code::Missing, file, &tls.span, message)
                .hint("name a PEM file or a folder of them: `certificates = \"/etc/weir/certs\"`");
        }
        return None;
    };
    let paths: Vec<PathBuf> = written
        .items
        .iter()
        .filter(|path| path.value != STORE)
        .map(|path| findings.sources.resolve(file, &path.value))
        .collect();
    if paths.is_empty() {
        return Some(Certificates::default());
    }
    let before = findings.certificates_before(name);
    match Certificates::read(&paths, before.as_deref()) {
        Ok(certificates) => {
            for file in &certificates.files {
                findings.watch(file);
            }
            for sentence in report::sentences(&certificates, warning, SystemTime::now()) {
                let message = format!("entrypoint `{name}`: {sentence}");
                findings.warning(Code::CertificateWarning, file, &written.span, message);
            }
            Some(certificates)
        }
        Err(unusable) => {
            for file in &unusable.files {
                findings.watch(file);
            }
            for fault in unusable.faults {
                let message = format!("entrypoint `{name}`: {}", fault.sentence);
                findings.error(Code::BadCertificate, file, &written.span, message).maybe_hint(fault.hint);
            }
            None
        }
    }
}

fn authorities(
    item: &Entrypoint<'_>,
    ca: &At<String>,
    findings: &mut Findings,
) -> Option<Arc<ClientAuthorities>> {
    let path = findings.sources.resolve(item.file, &ca.value);
    findings.watch(&path);
    match certificates::read_authorities(&path) {
        Ok(roots) => Some(Arc::new(ClientAuthorities(roots))),
        Err(fault) => {
            let message = format!("entrypoint `{}`: {}", item.name.value, fault.sentence);
            findings.error(Code::BadAuthority, item.file, &ca.span, message).maybe_hint(fault.hint);
            None
        }
    }
}

/// Of the whole entrypoint.
fn clients(
    item: &Entrypoint<'_>,
    body: &written::EntrypointTls,
    findings: &mut Findings,
) -> Option<ClientAuth> {
    let name = &item.name.value;
    let need = match &body.client_auth {
        None => Need::Require,
        Some(At { value: written::ClientAuth::Require, .. }) => Need::Require,
        Some(At { value: written::ClientAuth::Request, .. }) => Need::Request,
        Some(At { value: written::ClientAuth::None, span }) => {
            let message =
                format!("entrypoint `{name}`: tls.client_auth is `none`, which is for single hosts");
            findings
                .error(Code::Contradiction, item.file, span, message)
                .hint("leave `client_ca` and `client_auth` out to ask nobody for a certificate");
            return None;
        }
    };
    match (&body.client_ca, &body.client_auth) {
        (Some(ca), _) => Some(ClientAuth { authorities: authorities(item, ca, findings)?, need }),
        (None, Some(auth)) if !findings.lost(&format!("entrypoint.{name}.tls.client_ca")) => {
            let message = format!("entrypoint `{name}`: `client_auth` without `client_ca` does nothing");
            findings
                .error(Code::Contradiction, item.file, &auth.span, message)
                .hint("name the authorities of the clients: `client_ca = \"/etc/weir/origin-pull-ca.pem\"`");
            None
        }
        (None, _) => None,
    }
}

fn hosts(item: &Entrypoint<'_>, body: &written::EntrypointTls, findings: &mut Findings) -> Vec<HostTls> {
    let (file, entrypoint) = (item.file, &item.name.value);
    let mut hosts: Vec<(HostTls, &At<String>)> = Vec::new();
    for (name, written) in &body.host {
        let what = format!("entrypoint `{entrypoint}`: tls.host");
        let host = match value::host(&name.value) {
            Ok(host) => host,
            Err(refusal) => {
                scalar::refused(file, Code::BadHost, &what, name, refusal, findings);
                continue;
            }
        };
        if let Some((_, first)) = hosts.iter().find(|(known, _)| known.host == host) {
            let message = format!("{what} {} is written twice", quoted(&name.value));
            findings.error(Code::DefinedTwice, file, &name.span, message).related(
                file,
                &first.span,
                "first here",
            );
            continue;
        }
        let clients = host_clients(item, name, written, findings);
        hosts.push((HostTls { host, clients }, name));
    }
    hosts.into_iter().map(|(host, _)| host).collect()
}

fn host_clients(
    item: &Entrypoint<'_>,
    name: &At<String>,
    written: &At<written::HostTls>,
    findings: &mut Findings,
) -> Option<ClientAuth> {
    let what = format!("entrypoint `{}`: tls.host {}", item.name.value, quoted(&name.value));
    let need = match written.value.client_auth.as_ref().map(|auth| auth.value) {
        None | Some(written::ClientAuth::Require) => Need::Require,
        Some(written::ClientAuth::Request) => Need::Request,
        Some(written::ClientAuth::None) => {
            if let Some(ca) = &written.value.client_ca {
                let message = format!("{what}: `client_auth = \"none\"` makes `client_ca` pointless");
                findings
                    .error(Code::Contradiction, item.file, &ca.span, message)
                    .hint("take one of the two out");
            }
            return None;
        }
    };
    let Some(ca) = &written.value.client_ca else {
        let lost = format!("entrypoint.{}.tls.host.{}.client_ca", item.name.value, name.value);
        if !findings.lost(&lost) {
            findings
                .error(Code::Missing, item.file, &written.span, format!("{what} has no `client_ca`"))
                .hint("name the authorities of its clients, or write `client_auth = \"none\"`");
        }
        return None;
    };
    Some(ClientAuth { authorities: authorities(item, ca, findings)?, need })
}

fn client_headers(
    item: &Entrypoint<'_>,
    body: &written::EntrypointTls,
    clients: &Option<ClientAuth>,
    hosts: &[HostTls],
    findings: &mut Findings,
) -> bool {
    let Some(headers) = body.client_headers.as_ref().filter(|headers| headers.value) else { return false };
    let asked = clients.is_some() || hosts.iter().any(|host| host.clients.is_some());
    let path = format!("entrypoint.{}.tls", item.name.value);
    if !asked && !findings.failed() && !findings.lost_within(&path) {
        let message = format!(
            "entrypoint `{}`: `client_headers` without `client_ca` has no certificate to tell of",
            item.name.value
        );
        findings
            .error(Code::Contradiction, item.file, &headers.span, message)
            .hint("name the authorities of the clients with `client_ca`, or take it out");
    }
    true
}

fn versions(
    item: &Entrypoint<'_>,
    body: &written::EntrypointTls,
    findings: &mut Findings,
) -> (TlsVersion, CipherSuites) {
    let modern = body.ciphers.as_ref().filter(|ciphers| ciphers.value == written::CipherSuites::Modern);
    let Some(modern) = modern else {
        let version = match body.min_version.as_ref().map(|version| version.value) {
            Some(written::TlsVersion::V1_3) => TlsVersion::V1_3,
            Some(written::TlsVersion::V1_2) | None => TlsVersion::V1_2,
        };
        return (version, CipherSuites::Intermediate);
    };
    if let Some(At { value: written::TlsVersion::V1_2, span }) = &body.min_version {
        let message =
            format!("entrypoint `{}`: `modern` cipher suites are those of TLS 1.3 alone", item.name.value);
        findings
            .error(Code::Contradiction, item.file, span, message)
            .related(item.file, &modern.span, "with these, nobody could speak 1.2")
            .hint("write `ciphers = \"intermediate\"`, or take `min_version` out");
    }
    (TlsVersion::V1_3, CipherSuites::Modern)
}

fn alpn(item: &Entrypoint<'_>, body: &written::EntrypointTls, findings: &mut Findings) -> Vec<Alpn> {
    let both = [Alpn::H2, Alpn::Http11];
    let Some(list) = &body.alpn else { return both.to_vec() };
    let what = format!("entrypoint `{}`: tls.alpn", item.name.value);
    let mut protocols = Vec::new();
    for written in &list.items {
        match both.into_iter().find(|protocol| protocol.name() == written.value) {
            Some(protocol) if protocols.contains(&protocol) => {
                let message = format!("{what} {} is written twice", quoted(&written.value));
                findings.error(Code::DefinedTwice, item.file, &written.span, message);
            }
            Some(protocol) => protocols.push(protocol),
            None => {
                let message = format!("{what} {} is neither `h2` nor `http/1.1`", quoted(&written.value));
                findings
                    .error(Code::WrongValue, item.file, &written.span, message)
                    .suggest(value::nearest(&written.value, both.map(Alpn::name)));
            }
        }
    }
    if list.items.is_empty() && !findings.lost(&format!("entrypoint.{}.tls.alpn", item.name.value)) {
        findings
            .error(Code::EmptyList, item.file, &list.span, format!("{what} is an empty list"))
            .hint("leave the key out to speak HTTP/2 and HTTP/1.1");
    }
    protocols
}
