//! `[acme]`, and the names for which entrypoints want certificates.

use std::{collections::BTreeSet, sync::Arc};

use http::Uri;

use super::{
    merge::{Item, Merged},
    scalar,
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Acme, AcmeChallenge, Config, HostMatch},
        source::FileId,
        value::{self, quoted},
        written::{self, At},
    },
    tls::certificates::{self, ServerAuthorities},
};

pub fn acme(written: &Merged<'_>, findings: &mut Findings) -> Option<Acme> {
    let (file, section) = written.acme?;
    let body = &section.value;
    if !body.agree_to_terms.as_ref().is_some_and(|agreed| agreed.value)
        && !findings.lost("acme.agree_to_terms")
    {
        let span = body.agree_to_terms.as_ref().map_or(&section.span, |agreed| &agreed.span);
        findings
            .error(Code::Missing, file, span, "acme: nobody has agreed to the authority's terms")
            .hint("read them, and write `agree_to_terms = true`");
    }
    Some(Acme {
        directory: directory(file, body.directory.as_ref(), findings),
        contact: contact(file, body, findings),
        authorities: authorities("acme", file, body.ca.as_ref(), findings),
        challenge: match body.challenge.as_ref().map(|challenge| challenge.value) {
            None | Some(written::AcmeChallenge::Http01) => AcmeChallenge::Http01,
            Some(written::AcmeChallenge::TlsAlpn01) => AcmeChallenge::TlsAlpn01,
        },
    })
}

fn directory(file: FileId, written: Option<&At<String>>, findings: &mut Findings) -> Uri {
    let standard = Uri::from_static(default::ACME_DIRECTORY);
    let Some(written) = written else { return standard };
    let url = written.value.parse::<Uri>().ok().filter(|url| {
        let plain = !written.value.contains(['#', '@', '?']);
        url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()) && plain
    });
    url.unwrap_or_else(|| {
        let message = format!("acme.directory {} is not an https:// URL", quoted(&written.value));
        findings
            .error(Code::BadUrl, file, &written.span, message)
            .hint(format!("Let's Encrypt's is `{}`", default::ACME_DIRECTORY));
        standard
    })
}

fn contact(file: FileId, body: &written::Acme, findings: &mut Findings) -> Vec<String> {
    let mut contact = Vec::new();
    for written in body.contact.iter().flat_map(|list| &list.items) {
        let address = written.value.trim_start_matches("mailto:");
        let visible = address.chars().all(|c| c.is_ascii_graphic() && !matches!(c, ',' | '?'));
        match address.split_once('@') {
            Some((name, host)) if visible && !name.is_empty() && host.contains('.') => {
                contact.push(address.to_owned());
            }
            _ => {
                let message = format!("acme.contact {} is not a mail address", quoted(&written.value));
                findings
                    .error(Code::WrongValue, file, &written.span, message)
                    .hint("for instance `ops@example.com`");
            }
        }
    }
    contact
}

/// Whose certificates are taken, as `ca` says; `key` is what a fault is told of.
pub fn authorities(
    key: &str,
    file: FileId,
    ca: Option<&At<String>>,
    findings: &mut Findings,
) -> ServerAuthorities {
    let Some(ca) = ca else { return ServerAuthorities::System };
    let path = findings.sources.resolve(file, &ca.value);
    findings.watch(&path);
    match certificates::read_authorities(&path) {
        Ok(roots) => ServerAuthorities::Own(roots),
        Err(fault) => {
            let message = format!("{key}: {}", fault.sentence);
            findings.error(Code::BadAuthority, file, &ca.span, message).maybe_hint(fault.hint);
            ServerAuthorities::System
        }
    }
}

/// The names that an entrypoint wants certificates for.
pub fn names(
    item: &Item<'_, written::Entrypoint>,
    body: &written::EntrypointTls,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Vec<Arc<str>> {
    let Some(list) = &body.acme else { return Vec::new() };
    let what = format!("entrypoint `{}`: tls.acme", item.name.value);
    if list.items.is_empty() && !findings.lost(&format!("entrypoint.{}.tls.acme", item.name.value)) {
        findings
            .error(Code::EmptyList, item.file, &list.span, format!("{what} is an empty list"))
            .hint("name the hosts, or leave the key out");
    }
    if written.acme.is_none() && !findings.lost("acme") {
        findings
            .error(
                Code::Missing,
                item.file,
                &list.span,
                format!("{what}: there is no `[acme]` to order from"),
            )
            .hint("add `[acme]` with `agree_to_terms = true`");
    }
    let mut names = BTreeSet::new();
    for name in &list.items {
        match value::host(&name.value) {
            Ok(HostMatch::Exact(host)) if is_orderable(&host) => {
                names.insert(host);
            }
            Ok(_) => {
                let message = format!("{what} {} can't be ordered", quoted(&name.value));
                findings
                    .error(Code::BadHost, item.file, &name.span, message)
                    .hint("only DNS names can, without wildcards: those are proved in the DNS, which Weir doesn't write");
            }
            Err(refusal) => scalar::refused(item.file, Code::BadHost, &what, name, refusal, findings),
        }
    }
    names.into_iter().collect()
}

/// A DNS name with at least two labels, and not an address.
fn is_orderable(host: &str) -> bool {
    let labels =
        host.rsplit('.').next().is_some_and(|top| top.bytes().any(|byte| byte.is_ascii_alphabetic()));
    labels && host.contains('.') && !host.starts_with('[') && !host.contains('_')
}

/// Of challenges that nobody could answer, and of an `[acme]` that nobody uses.
pub fn warn(written: &Merged<'_>, config: &Config, findings: &mut Findings) {
    let (Some((file, section)), Some(acme)) = (written.acme, &config.acme) else { return };
    if findings.failed() {
        return;
    }
    let used = config.entrypoints.iter().any(|one| one.tls.as_ref().is_some_and(|tls| !tls.acme.is_empty()));
    if !used {
        findings.warning(
            Code::Unused,
            file,
            &section.span,
            "`[acme]` is never used: no entrypoint has `tls = { acme = … }`",
        );
    } else if acme.challenge == AcmeChallenge::Http01
        && config.entrypoints.iter().all(|one| one.tls.is_some())
    {
        findings
            .warning(
                Code::UnansweredChallenge,
                file,
                &section.span,
                "acme: no entrypoint speaks plain HTTP, by which `http-01` is asked",
            )
            .hint(
                "add one at port 80 (`redirect = \"https\"` is fine), or write `challenge = \"tls-alpn-01\"`",
            );
    }
}
