//! `[provider.NAME]` of kinds that discover servers: Docker, and Consul's catalog. Nothing is asked for here.

use std::path::Path;

use super::{
    fleet,
    merge::Item,
    providers::{authorities, consul_address, datacenter, token, what},
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{ConsulCatalog, Docker, DockerEndpoint},
        value::quoted,
        written::{self, At},
    },
    store::address,
};

pub fn docker(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Docker> {
    if !cfg!(feature = "docker") {
        not_built(item, "Docker", findings);
        return None;
    }
    let by_default = At { span: item.name.span.clone(), value: default::DOCKER_ENDPOINT.to_owned() };
    let written = item.body.endpoint.as_ref().unwrap_or(&by_default);
    let endpoint = endpoint(item, written, findings)?;
    let tls = item.body.tls.as_ref().map(|written| fleet::tls(item, written, findings));
    match (&endpoint, &item.body.tls) {
        (DockerEndpoint::Unix(_), Some(written)) => {
            let message = format!("{}: there is no TLS over a unix socket", what(item, "tls"));
            findings
                .error(Code::Contradiction, item.file, &written.span, message)
                .hint("take it out, or write `endpoint = \"tcp://HOST:2376\"`");
        }
        (DockerEndpoint::Tcp { host, .. }, None) if !matches!(&**host, "127.0.0.1" | "::1" | "localhost") => {
            let message =
                format!("{} {} is asked without TLS", what(item, "endpoint"), quoted(&written.value));
            findings.warning(Code::PlainProvider, item.file, &written.span, message).hint(
                "whoever reaches that port is root there: `tls = { ca = …, certificate = …, key = … }`",
            );
        }
        _ => {}
    }
    Some(Docker {
        endpoint,
        tls,
        network: item.body.network.as_ref().map(|at| at.value.clone()),
        exposed_by_default: item.body.exposed_by_default.as_ref().is_some_and(|at| at.value),
    })
}

fn endpoint(
    item: &Item<'_, written::Provider>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<DockerEndpoint> {
    if let Some(path) = written.value.strip_prefix("unix://").map(Path::new).filter(|path| path.is_absolute())
    {
        return Some(DockerEndpoint::Unix(path.to_owned()));
    }
    let tcp = written.value.strip_prefix("tcp://").and_then(|rest| {
        // A port is never left out: 2375 and 2376 are too different to be guessed.
        let (host, port) = rest.rsplit_once(':')?;
        address::endpoint(rest).ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(DockerEndpoint::Tcp { host, port: port.parse().ok()? })
    });
    if tcp.is_none() {
        let message = format!("{} {} is not an address", what(item, "endpoint"), quoted(&written.value));
        findings
            .error(Code::BadAddress, item.file, &written.span, message)
            .hint("write `unix:///var/run/docker.sock` or `tcp://HOST:2376`");
    }
    tcp
}

pub fn catalog(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<ConsulCatalog> {
    if !cfg!(feature = "consul-catalog") {
        not_built(item, "Consul's catalog", findings);
        return None;
    }
    let address = consul_address(item, "write scheme, host and port alone", findings)?;
    let written = item.body.datacenters.iter().flat_map(|list| &list.items);
    let datacenters = written.map(|name| datacenter(item, "datacenters", name, findings)).collect::<Vec<_>>();
    Some(ConsulCatalog {
        address,
        datacenters,
        exposed_by_default: item.body.exposed_by_default.as_ref().is_none_or(|at| at.value),
        token: token(item, findings),
        authorities: authorities(item, findings),
    })
}

pub(super) fn not_built(item: &Item<'_, written::Provider>, what: &str, findings: &mut Findings) {
    let message = format!("provider `{}`: this weir was built without {what}", item.name.value);
    findings.error(Code::NotYetSupported, item.file, &item.name.span, message);
}
