//! The keys of an entrypoint that have to do with TLS.

use super::{Keys, fingerprint, joined, roots, show};
use crate::{
    config::model::{Alpn, CipherSuites, ClientAuth, Entrypoint, HostMatch, Need, TlsVersion, UnknownHost},
    tls::certificates::Certificate,
};

pub fn entrypoint(one: &Entrypoint, keys: &mut Keys) {
    if let Some(hsts) = &one.hsts {
        keys.insert("hsts", String::from_utf8_lossy(hsts.as_bytes()).into_owned());
    }
    if let Some(redirect) = &one.redirect {
        keys.insert("redirect", redirect.port.map_or("https".to_owned(), |port| format!("https:{port}")));
        keys.insert("redirect_status", redirect.status.as_u16().to_string());
        if !redirect.except.is_empty() {
            keys.insert("redirect_except", joined(&redirect.except));
        }
    }
    let Some(tls) = &one.tls else { return };
    keys.insert("tls.certificates", joined(tls.certificates.entries.iter().map(certificate)));
    keys.insert("tls.alpn", joined(tls.alpn.iter().copied().map(Alpn::name)));
    let version = match tls.min_version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    };
    keys.insert("tls.min_version", version.to_owned());
    let ciphers = match tls.ciphers {
        CipherSuites::Intermediate => "intermediate",
        CipherSuites::Modern => "modern",
    };
    keys.insert("tls.ciphers", ciphers.to_owned());
    let unknown = match tls.unknown_host {
        UnknownHost::Default => "default",
        UnknownHost::Refuse => "refuse",
    };
    keys.insert("tls.unknown_host", unknown.to_owned());
    keys.insert("tls.expiry_warning", show(tls.expiry_warning));
    keys.insert("tls.client_headers", tls.client_headers.to_string());
    if let Some(auth) = &tls.clients {
        keys.insert("tls.client_ca", clients(auth));
    }
    let hosts = tls.hosts.iter().map(|host| {
        let name = match &host.host {
            HostMatch::Exact(name) => name.to_string(),
            HostMatch::Wildcard(suffix) => format!("*.{suffix}"),
            HostMatch::Any | HostMatch::Regex(_) => "any".to_owned(),
        };
        format!("{name}: {}", host.clients.as_ref().map_or("nobody is asked".to_owned(), clients))
    });
    let hosts: Vec<_> = hosts.collect();
    if !hosts.is_empty() {
        keys.insert("tls.host", joined(hosts));
    }
}

pub fn certificate(one: &Certificate) -> String {
    let leaf = one.key.cert.first().map_or(&[][..], |leaf| leaf.as_ref());
    format!("{} for {} ({})", one.file.display(), one.names.join(" and "), fingerprint(leaf))
}

fn clients(auth: &ClientAuth) -> String {
    let need = match auth.need {
        Need::Require => "required",
        Need::Request => "requested",
    };
    format!("{need} from {}", roots(&auth.authorities.0))
}
