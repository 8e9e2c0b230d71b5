//! `tls` of a service: whom Weir trusts there, and as whom it shows itself.

use std::{sync::Arc, time::SystemTime};

use rustls::pki_types::ServerName;

use crate::{
    config::{
        code::Code,
        findings::Findings,
        model::ServiceTls,
        validate::merge::Item,
        value::quoted,
        written::{self, At},
    },
    tls::{
        certificates::{self, Certificate, ServerAuthorities},
        report,
    },
};

pub fn service(item: &Item<'_, written::Service>, findings: &mut Findings) -> Option<ServiceTls> {
    let tls = item.body.tls.as_ref()?;
    let name = &item.name.value;
    let insecure = tls.value.insecure.as_ref().filter(|insecure| insecure.value);
    let authorities = match (&tls.value.ca, insecure) {
        (Some(ca), Some(insecure)) => {
            let message = format!("service `{name}`: `insecure = true` makes `ca` pointless");
            findings
                .error(Code::Contradiction, item.file, &insecure.span, message)
                .related(item.file, &ca.span, "this would not be used")
                .hint("take `insecure` out");
            ServerAuthorities::Anybody
        }
        (None, Some(insecure)) => {
            let message = format!("service `{name}`: the servers' certificates are not checked");
            findings
                .warning(Code::Insecure, item.file, &insecure.span, message)
                .hint("`ca = \"…\"` with the authority that signed them is as easy and safe");
            ServerAuthorities::Anybody
        }
        (Some(ca), None) => {
            let path = findings.sources.resolve(item.file, &ca.value);
            findings.watch(&path);
            match certificates::read_authorities(&path) {
                Ok(roots) => ServerAuthorities::Own(roots),
                Err(fault) => {
                    let message = format!("service `{name}`: {}", fault.sentence);
                    findings.error(Code::BadAuthority, item.file, &ca.span, message).maybe_hint(fault.hint);
                    ServerAuthorities::System
                }
            }
        }
        (None, None) => ServerAuthorities::System,
    };
    let certificate = own_certificate(item, tls, findings);
    Some(ServiceTls { server_name: server_name(item, tls, findings)?, authorities, certificate })
}

fn server_name(
    item: &Item<'_, written::Service>,
    tls: &At<written::ServiceTls>,
    findings: &mut Findings,
) -> Option<ServerName<'static>> {
    let name = &item.name.value;
    let Some(written) = &tls.value.server_name else {
        if !findings.lost(&format!("service.{name}.tls.server_name")) {
            findings
                .error(Code::Missing, item.file, &tls.span, format!("service `{name}`: `tls` has no `server_name`"))
                .hint("write the name that the server's certificate is issued for: `server_name = \"app.example.com\"`");
        }
        return None;
    };
    let parsed = ServerName::try_from(written.value.clone());
    if parsed.is_err() {
        let message =
            format!("service `{name}`: tls.server_name {} is not a DNS name", quoted(&written.value));
        findings
            .error(Code::BadServerName, item.file, &written.span, message)
            .hint("no scheme, port or wildcard belongs there: `app.example.com`");
    }
    parsed.ok()
}

/// The certificate for servers that ask for one.
fn own_certificate(
    item: &Item<'_, written::Service>,
    tls: &At<written::ServiceTls>,
    findings: &mut Findings,
) -> Option<Arc<Certificate>> {
    let name = &item.name.value;
    let Some(written) = &tls.value.client_certificate else {
        if let Some(key) = &tls.value.client_key
            && !findings.lost(&format!("service.{name}.tls.client_certificate"))
        {
            let message = format!("service `{name}`: `client_key` without `client_certificate` does nothing");
            findings
                .error(Code::Contradiction, item.file, &key.span, message)
                .hint("name the certificate too: `client_certificate = \"/etc/weir/client.crt\"`");
        }
        return None;
    };
    let chain = findings.sources.resolve(item.file, &written.value);
    let key = match &tls.value.client_key {
        Some(key) => findings.sources.resolve(item.file, &key.value),
        None => chain.with_extension("key"),
    };
    findings.watch(&chain);
    findings.watch(&key);
    match certificates::read_pair(&chain, &key) {
        Ok(certificate) => {
            if let Some(sentence) = report::validity(&certificate, report::WARNING, SystemTime::now()) {
                let message = format!("service `{name}`: {sentence}");
                findings.warning(Code::CertificateWarning, item.file, &written.span, message);
            }
            Some(Arc::new(certificate))
        }
        Err(fault) => {
            let message = format!("service `{name}`: {}", fault.sentence);
            findings.error(Code::BadCertificate, item.file, &written.span, message).maybe_hint(fault.hint);
            None
        }
    }
}
