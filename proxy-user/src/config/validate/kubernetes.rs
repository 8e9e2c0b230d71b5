//! `[provider.NAME]` with `kind = "kubernetes"`. Nothing is asked for here; a kubeconfig is read.

mod kubeconfig;

use std::{path::Path, sync::Arc};

use super::{
    discovery::not_built,
    globals,
    merge::{Item, Merged},
    providers::{address, authorities, what},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    gather,
    model::{Access, ApiServer, ApiToken, Kubernetes, PortOf},
    value::quoted,
    written::{self, At, List},
};

/// A kubeconfig is written by hand or by a tool.
const LARGEST: u64 = 1 << 20;

pub fn kubernetes(
    item: &Item<'_, written::Provider>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Kubernetes> {
    if !cfg!(feature = "kubernetes") {
        not_built(item, "Kubernetes", findings);
        return None;
    }
    let body = item.body;
    let access = access(item, findings);
    let http = ports(item, "http", body.http.as_ref(), 80, Some(false), written, findings);
    let https = ports(item, "https", body.https.as_ref(), 443, Some(true), written, findings);
    let passthrough = match &body.passthrough {
        Some(list) => ports(item, "passthrough", Some(list), 443, None, written, findings),
        None => https.clone(),
    };
    let key = |key: &str| format!("provider.{}.{key}", item.name.value);
    let written_one = [&body.http, &body.https, &body.passthrough].iter().any(|list| list.is_some());
    if !written_one && !["http", "https", "passthrough"].iter().any(|name| findings.lost(&key(name))) {
        let message =
            format!("provider `{}` names no entrypoint at which its routes come in", item.name.value);
        findings
            .error(Code::Missing, item.file, &item.name.span, message)
            .hint("for instance `http = \"http\"` and `https = \"https\"`");
    }
    let reads_secrets = body.secrets.as_ref().is_some_and(|at| at.value);
    let state = globals::state(written, &mut Findings::default()).dir;
    let (ingress_class, gateway_class) =
        (class(body.ingress_class.as_ref()), class(body.gateway_class.as_ref()));
    if ingress_class.is_none() && gateway_class.is_none() {
        let message = format!("provider `{}` looks at neither Ingresses nor Gateways", item.name.value);
        findings
            .error(Code::Contradiction, item.file, &item.name.span, message)
            .hint("leave one of `ingress_class` and `gateway_class` on");
    }
    Some(Kubernetes {
        access: access?,
        namespaces: namespaces(item, findings),
        ingress_class,
        gateway_class,
        http,
        https,
        passthrough,
        external_names: body.external_names.as_ref().is_some_and(|at| at.value),
        certificates: reads_secrets.then(|| state.join("kubernetes").join(&item.name.value)),
    })
}

fn class(written: Option<&At<String>>) -> Option<Arc<str>> {
    let class = written.map_or(default::KUBERNETES_CLASS, |written| &written.value);
    (class != "off").then(|| class.into())
}

fn access(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Access> {
    let body = item.body;
    let lost = |key: &str| findings.lost(&format!("provider.{}.{key}", item.name.value));
    if lost("kubeconfig") || lost("address") {
        return None;
    }
    let Some(written) = &body.address else {
        for (key, other) in [("token_file", &body.token_file), ("ca", &body.ca)] {
            let Some(other) = other else { continue };
            let message = format!("provider `{}`: `{key}` says nothing without `address`", item.name.value);
            findings
                .error(Code::Contradiction, item.file, &other.span, message)
                .hint("a kubeconfig and a pod's service account bring their own: take it out");
        }
        return match &body.kubeconfig {
            Some(written) => kubeconfig(item, written, findings).map(|server| Access::At(Box::new(server))),
            None => Some(Access::InCluster),
        };
    };
    if let Some(other) = &body.kubeconfig {
        let message = format!("provider `{}` has both `address` and `kubeconfig`", item.name.value);
        findings
            .error(Code::Contradiction, item.file, &other.span, message)
            .related(item.file, &written.span, "the other one")
            .hint("both say where the API server is: keep one");
        return None;
    }
    let token = body.token_file.as_ref();
    Some(Access::At(Box::new(ApiServer {
        address: address(item, written, "the API's own paths follow it", findings)?,
        authorities: authorities(item, findings),
        token: token.map(|path| ApiToken::File(findings.sources.resolve(item.file, &path.value))),
        certificate: None,
    })))
}

fn kubeconfig(
    item: &Item<'_, written::Provider>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<ApiServer> {
    let path = findings.sources.resolve(item.file, &written.value);
    findings.watch(&path);
    let read = gather::text(&path, LARGEST)
        .map_err(|error| gather::reason(&error))
        .and_then(|text| kubeconfig::read(&text, path.parent().unwrap_or(Path::new("/"))));
    match read {
        Ok(read) => {
            for file in &read.files {
                findings.watch(file);
            }
            Some(read.server)
        }
        Err(why) => {
            let message = format!(
                "{}: {} can't be used: {why}",
                what(item, "kubeconfig"),
                quoted(&path.to_string_lossy())
            );
            findings
                .error(Code::BadSecret, item.file, &written.span, message)
                .hint("`kubectl --kubeconfig FILE config view --minify --flatten` shows what counts of it");
            None
        }
    }
}

fn namespaces(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Vec<Arc<str>> {
    let Some(list) = &item.body.namespaces else { return Vec::new() };
    if list.items.is_empty() && !findings.lost(&format!("provider.{}.namespaces", item.name.value)) {
        let message = format!("{} is an empty list", what(item, "namespaces"));
        findings
            .error(Code::EmptyList, item.file, &list.span, message)
            .hint("leave the key out to look at all namespaces");
    }
    let mut all: Vec<Arc<str>> = Vec::new();
    for name in &list.items {
        let letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        let sound = (1..=63).contains(&name.value.len())
            && name.value.chars().all(letter)
            && !name.value.starts_with('-')
            && !name.value.ends_with('-');
        if !sound {
            let message =
                format!("{} {} is no namespace's name", what(item, "namespaces"), quoted(&name.value));
            findings
                .error(Code::BadName, item.file, &name.span, message)
                .hint("1 to 63 small letters, digits and dashes; there are no patterns");
        } else if all.iter().any(|known| **known == *name.value) {
            let message = format!("{} {} is written twice", what(item, "namespaces"), quoted(&name.value));
            findings.error(Code::DefinedTwice, item.file, &name.span, message).hint("keep one of the two");
        }
        all.push(name.value.as_str().into());
    }
    all
}

/// `NAME` or `NAME:PORT`. `tls`: whether the entrypoint must have it, or must not.
fn ports(
    item: &Item<'_, written::Provider>,
    key: &str,
    list: Option<&List>,
    usual: u16,
    tls: Option<bool>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Vec<PortOf> {
    let Some(list) = list else { return Vec::new() };
    let what = what(item, key);
    if list.items.is_empty() && !findings.lost(&format!("provider.{}.{key}", item.name.value)) {
        findings
            .error(Code::EmptyList, item.file, &list.span, format!("{what} is an empty list"))
            .hint("leave the key out where there is none");
    }
    let mut ports = Vec::new();
    for one in &list.items {
        let (name, port) = match one.value.split_once(':') {
            None => (&*one.value, Some(usual)),
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)),
        };
        let Some(port) = port else {
            let message = format!("{what} {} has no usable port", quoted(&one.value));
            findings
                .error(Code::BadAddress, item.file, &one.span, message)
                .hint(format!("for instance `{name}:{usual}`; for port {usual} the name will do"));
            continue;
        };
        let at = At { span: one.span.clone(), value: name.to_owned() };
        let by = format!("{what} names");
        let id = written.entrypoints.refer(item.file, &at, &by, Code::NoSuchEntrypoint, findings);
        if let (Some(id), Some(tls)) = (id, tls)
            && written.entrypoints.items[id].body.tls.is_some() != tls
            && !findings.lost(&format!("entrypoint.{name}.tls"))
        {
            let (has, other) = if tls { ("has no", "http") } else { ("has", "https") };
            let message = format!("{what} names `{name}`, which {has} `tls`");
            findings
                .error(Code::Contradiction, item.file, &one.span, message)
                .hint(format!("it belongs into `{other}`"));
        }
        ports.push(PortOf { entrypoint: name.into(), port });
    }
    ports
}
