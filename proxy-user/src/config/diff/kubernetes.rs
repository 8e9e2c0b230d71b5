//! What changes of a cluster whose objects are served.

use super::{Keys, authorities, fingerprint, joined};
use crate::config::model::{Access, ApiServer, ApiToken, Kubernetes, PortOf};

pub fn keys(source: &Kubernetes) -> Keys {
    let Kubernetes {
        access,
        namespaces,
        ingress_class,
        gateway_class,
        http,
        https,
        passthrough,
        external_names,
        certificates,
    } = source;
    let class = |class: &Option<std::sync::Arc<str>>| class.as_deref().unwrap_or("off").to_owned();
    let ports = |ports: &[PortOf]| joined(ports.iter().map(|one| format!("{}:{}", one.entrypoint, one.port)));
    let mut keys = Keys::from([
        ("ingress_class", class(ingress_class)),
        ("gateway_class", class(gateway_class)),
        ("http", ports(http)),
        ("https", ports(https)),
        ("passthrough", ports(passthrough)),
        ("external_names", external_names.to_string()),
        ("secrets", certificates.is_some().to_string()),
    ]);
    if !namespaces.is_empty() {
        keys.insert("namespaces", joined(namespaces));
    }
    match access {
        Access::InCluster => _ = keys.insert("address", "of the pod's service account".to_owned()),
        Access::At(server) => {
            let ApiServer { address, authorities: whom, token, certificate } = &**server;
            keys.insert("address", address.to_string());
            keys.insert("ca", authorities(whom));
            match token {
                Some(ApiToken::File(path)) => _ = keys.insert("token_file", path.display().to_string()),
                Some(ApiToken::Said(secret)) => {
                    keys.insert("token", format!("a secret ({})", fingerprint(&secret.0)));
                }
                None => {}
            }
            if let Some(leaf) = certificate.as_ref().and_then(|one| one.key.cert.first()) {
                keys.insert("client certificate", fingerprint(leaf));
            }
        }
    }
    keys
}
