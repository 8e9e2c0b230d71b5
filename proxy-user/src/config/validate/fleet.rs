//! `[fleet]`, and `[provider.NAME]` of kind `etcd`. Nothing is asked for here.

use std::{path::PathBuf, sync::Arc};

use super::{
    globals,
    merge::{Item, Merged},
    providers::what,
};
use crate::{
    config::{
        code::Code,
        findings::Findings,
        model::{Etcd, Fleet},
        source::FileId,
        value::quoted,
        written::{self, At, ProviderKind},
    },
    fleet::{seal::FleetKeys, shared::switch::is_host},
    store::address::{self, Login, StoreAddress, StoreTls},
    tls::certificates,
};

/// This host's part, if it has one.
pub fn fleet(written: &Merged<'_>, findings: &mut Findings) -> Option<Fleet> {
    let (file, section) = written.fleet?;
    let host = host(written, Some(findings));
    let keys = keys(file, &section.value, findings);
    let Some(store) = &section.value.store else {
        if !findings.lost("fleet.store") {
            findings
                .error(Code::Missing, file, &section.span, "`[fleet]` has no `store`")
                .hint("name the provider whose store it is: `store = \"store\"`");
        }
        return None;
    };
    let provider = written.providers.items.iter().find(|item| item.name.value == store.value);
    match provider.map(|item| item.body.kind.as_ref().map(|kind| kind.value)) {
        Some(Some(ProviderKind::Etcd) | None) => {}
        Some(Some(_)) => {
            let message = format!("fleet.store: provider {} is no store", quoted(&store.value));
            findings
                .error(Code::Contradiction, file, &store.span, message)
                .hint("a fleet's store is a provider of kind `etcd`");
            return None;
        }
        None if findings.lost(&format!("provider.{}", store.value)) => return None,
        None => {
            let message = format!("fleet.store: there is no provider {}", quoted(&store.value));
            let names = written.providers.items.iter().map(|item| item.name.value.as_str());
            let nearest = crate::config::value::nearest(&store.value, names).map(str::to_owned);
            findings.error(Code::NoSuchProvider, file, &store.span, message).suggest(nearest.as_deref());
            return None;
        }
    }
    Some(Fleet { store: store.value.as_str().into(), host: host?.as_str().into(), keys })
}

/// What seals secrets in the store.
fn keys(file: FileId, section: &written::Fleet, findings: &mut Findings) -> Option<Arc<FleetKeys>> {
    let written = section.key_file.as_ref()?;
    let path = findings.sources.resolve(file, &written.value);
    findings.watch(&path);
    match FleetKeys::read(&path) {
        Ok(keys) => Some(Arc::new(keys)),
        Err(why) => {
            let message = format!("fleet.key_file: {} can't be used: {why}", quoted(&path.to_string_lossy()));
            findings
                .error(Code::BadFleetKey, file, &written.span, message)
                .hint("`weir fleet key FILE` makes one; every host of the fleet needs the same");
            None
        }
    }
}

/// What this host is called. `findings`: to be told of a name that can't be.
fn host(written: &Merged<'_>, findings: Option<&mut Findings>) -> Option<String> {
    let section = written.fleet.map(|(file, section)| (file, section, section.value.host.as_ref()));
    let (name, place) = match section {
        Some((file, _, Some(host))) => (host.value.clone(), Some((file, &host.span))),
        other => {
            let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
            (name, other.map(|(file, section, _)| (file, &section.span)))
        }
    };
    if is_host(&name) {
        return Some(name);
    }
    if let Some((findings, (file, span))) = findings.zip(place) {
        let message = format!("fleet.host: {} is not a host's name", quoted(&name));
        findings
            .error(Code::BadName, file, span, message)
            .hint("1 to 64 letters, digits, dots, dashes and underscores: `host = \"edge-1\"`");
    }
    None
}

pub fn etcd(
    item: &Item<'_, written::Provider>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Etcd> {
    let file = item.file;
    if !cfg!(feature = "etcd") {
        let message = format!("provider `{}`: this weir was built without etcd", item.name.value);
        findings.error(Code::NotYetSupported, file, &item.name.span, message);
        return None;
    }
    let address = StoreAddress {
        endpoints: endpoints(item, findings)?,
        prefix: address::prefix(item.body.prefix.as_ref().map_or("", |prefix| &prefix.value)),
        tls: item.body.tls.as_ref().map(|written| tls(item, written, findings)),
        login: login(item, findings),
    };
    let fleet = written.fleet.and_then(|(_, section)| section.value.store.as_ref());
    Some(Etcd {
        address,
        // A name that can't be is told where it stands.
        host: host(written, None).unwrap_or_else(|| "this-host".to_owned()).into(),
        reports: fleet.is_some_and(|store| store.value == item.name.value),
        state: globals::state(written, &mut Findings::default()).dir,
    })
}

fn endpoints(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Vec<String>> {
    let key = what(item, "endpoints");
    let Some(list) = item.body.endpoints.as_ref().filter(|list| !list.items.is_empty()) else {
        if !findings.lost(&format!("provider.{}.endpoints", item.name.value)) {
            let message = format!("provider `{}` has no `endpoints`", item.name.value);
            findings
                .error(Code::Missing, item.file, &item.name.span, message)
                .hint("for instance `endpoints = [\"10.0.0.5:2379\", \"10.0.0.6:2379\"]`");
        }
        return None;
    };
    let mut all = Vec::new();
    for written in &list.items {
        match address::endpoint(&written.value) {
            Ok(endpoint) => all.push(endpoint),
            Err(_) => {
                let message = format!("{key}: {} is not an address", quoted(&written.value));
                findings
                    .error(Code::BadAddress, item.file, &written.span, message)
                    .hint("write `HOST:PORT`, without a scheme: `tls = { … }` turns TLS on");
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

pub(super) fn tls(
    item: &Item<'_, written::Provider>,
    written: &At<written::StoreTls>,
    findings: &mut Findings,
) -> StoreTls {
    let written::StoreTls { ca, certificate, key } = &written.value;
    let path = |at: &At<String>, findings: &mut Findings| -> PathBuf {
        let path = findings.sources.resolve(item.file, &at.value);
        findings.watch(&path);
        path
    };
    let ca = ca.as_ref().map(|at| {
        let path = path(at, findings);
        if let Err(fault) = certificates::read_authorities(&path) {
            unusable(item.file, at, &what(item, "tls.ca"), &fault.sentence, findings);
        }
        path
    });
    let pair = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (one, other) = (path(certificate, findings), path(key, findings));
            if let Err(fault) = certificates::read_pair(&one, &other) {
                unusable(item.file, certificate, &what(item, "tls.certificate"), &fault.sentence, findings);
            }
            Some((one, other))
        }
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            let message = format!("{}: a certificate and its key go together", what(item, "tls"));
            findings
                .error(Code::Missing, item.file, &alone.span, message)
                .hint("write both `certificate` and `key`");
            None
        }
    };
    StoreTls { ca, certificate: pair }
}

fn unusable(file: FileId, at: &At<String>, what: &str, why: &str, findings: &mut Findings) {
    findings.error(Code::BadCertificate, file, &at.span, format!("{what}: {why}"));
}

fn login(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Login> {
    let password_file = item.body.password_file.as_ref();
    match (&item.body.user, password_file) {
        (Some(user), Some(file)) => {
            let path = findings.sources.resolve(item.file, &file.value);
            Some(Login { user: user.value.clone(), password_file: Some(path) })
        }
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            let message = format!("provider `{}`: a user and a password go together", item.name.value);
            findings
                .error(Code::Missing, item.file, &alone.span, message)
                .hint("write both `user` and `password_file`");
            None
        }
    }
}
