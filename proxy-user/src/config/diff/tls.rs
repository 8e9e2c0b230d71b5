//! The keys of an entrypoint that have to do with TLS.

use http::HeaderValue;

use super::{Keys, fingerprint, joined, roots, show};
use crate::{
    config::model::{
        Alpn, CipherSuites, ClientAuth, EntrypointTls, HostMatch, HostTls, Need, RedirectToHttps, TlsVersion,
        UnknownHost,
    },
    tls::certificates::Certificate,
};

pub fn entrypoint(
    tls: Option<&EntrypointTls>,
    hsts: Option<&HeaderValue>,
    redirect: Option<&RedirectToHttps>,
    keys: &mut Keys,
) {
    if let Some(hsts) = hsts {
        keys.insert("hsts", String::from_utf8_lossy(hsts.as_bytes()).into_owned());
    }
    if let Some(RedirectToHttps { port, status, except }) = redirect {
        keys.insert("redirect", port.map_or("https".to_owned(), |port| format!("https:{port}")));
        keys.insert("redirect_status", status.as_u16().to_string());
        if !except.is_empty() {
            keys.insert("redirect_except", joined(except));
        }
    }
    if let Some(tls) = tls {
        terminated(tls, keys);
    }
}

fn terminated(tls: &EntrypointTls, keys: &mut Keys) {
    let EntrypointTls {
        certificates,
        store,
        acme,
        unknown_host,
        expiry_warning,
        min_version,
        ciphers,
        alpn,
        clients,
        client_headers,
        hosts,
    } = tls;
    let store = store.then(|| "store".to_owned());
    keys.insert("tls.certificates", joined(certificates.entries.iter().map(certificate).chain(store)));
    if !acme.is_empty() {
        keys.insert("tls.acme", joined(acme));
    }
    keys.insert("tls.alpn", joined(alpn.iter().copied().map(Alpn::name)));
    let version = match min_version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    };
    keys.insert("tls.min_version", version.to_owned());
    let ciphers = match ciphers {
        CipherSuites::Intermediate => "intermediate",
        CipherSuites::Modern => "modern",
    };
    keys.insert("tls.ciphers", ciphers.to_owned());
    let unknown = match unknown_host {
        UnknownHost::Default => "default",
        UnknownHost::Refuse => "refuse",
    };
    keys.insert("tls.unknown_host", unknown.to_owned());
    keys.insert("tls.expiry_warning", show(*expiry_warning));
    keys.insert("tls.client_headers", client_headers.to_string());
    if let Some(auth) = clients {
        keys.insert("tls.client_ca", self::clients(auth));
    }
    let hosts = hosts.iter().map(|HostTls { host, clients }| {
        let name = match host {
            HostMatch::Exact(name) => name.to_string(),
            HostMatch::Wildcard(suffix) => format!("*.{suffix}"),
            HostMatch::Any | HostMatch::Regex(_) => "any".to_owned(),
        };
        format!("{name}: {}", clients.as_ref().map_or("nobody is asked".to_owned(), self::clients))
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

fn clients(ClientAuth { authorities, need }: &ClientAuth) -> String {
    let need = match need {
        Need::Require => "required",
        Need::Request => "requested",
    };
    format!("{need} from {}", roots(&authorities.0))
}
