//! What changes of where further configuration comes from.

use super::{Keys, authorities, fingerprint, joined, kubernetes, show};
use crate::config::model::{
    Consul, ConsulCatalog, Directory, Docker, Etcd, Fleet, HttpSource, Provider, ProviderSource,
};
use crate::store::address::{Login, StoreTls};

pub fn provider(one: &Provider) -> Keys {
    let mut keys = Keys::from([("kind", one.kind().to_owned()), ("order", one.order.to_string())]);
    match &one.source {
        ProviderSource::Directory(Directory { path, every }) => {
            keys.insert("path", path.display().to_string());
            keys.insert("every", show(*every));
        }
        ProviderSource::Http(source) => {
            let HttpSource { url, every, timeout, headers, authorities: whom } = &**source;
            keys.insert("url", url.to_string());
            keys.insert("every", show(*every));
            keys.insert("timeout", show(*timeout));
            if !headers.is_empty() {
                keys.insert("headers", joined(headers.keys()));
                let values: Vec<u8> =
                    headers.values().flat_map(|value| [value.as_bytes(), b"\n"].concat()).collect();
                // Some of them are secrets: that they differ is all that is told.
                keys.insert("header values", format!("a secret ({})", fingerprint(&values)));
            }
            keys.insert("ca", authorities(whom));
        }
        ProviderSource::Consul(source) => {
            let Consul { address, prefix, datacenter, token, authorities: whom } = &**source;
            keys.insert("address", address.to_string());
            keys.insert("prefix", format!("/{prefix}/"));
            keys.extend(datacenter.clone().map(|datacenter| ("datacenter", datacenter)));
            let token = token.as_ref().map(|token| format!("a secret ({})", fingerprint(&token.0)));
            keys.extend(token.map(|token| ("token_file", token)));
            keys.insert("ca", authorities(whom));
        }
        ProviderSource::Kubernetes(source) => keys.extend(kubernetes::keys(source)),
        ProviderSource::ConsulCatalog(source) => {
            let ConsulCatalog { address, datacenters, exposed_by_default, token, authorities: whom } =
                &**source;
            keys.insert("address", address.to_string());
            keys.insert("exposed_by_default", exposed_by_default.to_string());
            if !datacenters.is_empty() {
                keys.insert("datacenters", datacenters.join(", "));
            }
            let token = token.as_ref().map(|token| format!("a secret ({})", fingerprint(&token.0)));
            keys.extend(token.map(|token| ("token_file", token)));
            keys.insert("ca", authorities(whom));
        }
        ProviderSource::Docker(source) => {
            let Docker { endpoint, tls: how, network, exposed_by_default } = &**source;
            keys.insert("endpoint", endpoint.to_string());
            keys.insert("exposed_by_default", exposed_by_default.to_string());
            keys.extend(network.clone().map(|network| ("network", network)));
            tls(&mut keys, how.as_ref());
        }
        ProviderSource::Etcd(etcd) => {
            // The host and the state folder are told with their own sections.
            let Etcd { address, host: _, reports: _, state: _ } = &**etcd;
            keys.insert("endpoints", address.endpoints.join(", "));
            keys.insert("prefix", address.prefix.clone());
            tls(&mut keys, address.tls.as_ref());
            if let Some(Login { user, password_file }) = &address.login {
                keys.insert("user", user.clone());
                keys.extend(password_file.as_ref().map(|file| ("password_file", file.display().to_string())));
            }
        }
    }
    keys
}

fn tls(keys: &mut Keys, tls: Option<&StoreTls>) {
    let Some(StoreTls { ca, certificate }) = tls else { return };
    keys.insert("tls.ca", ca.as_ref().map_or_else(|| "system".to_owned(), |ca| ca.display().to_string()));
    if let Some((certificate, key)) = certificate {
        keys.insert("tls.certificate", certificate.display().to_string());
        keys.insert("tls.key", key.display().to_string());
    }
}

pub fn fleet(Fleet { store, host, keys: sealing }: &Fleet) -> Keys {
    let mut keys = Keys::from([("store", store.to_string()), ("host", host.to_string())]);
    keys.extend(sealing.as_ref().map(|sealing| ("key_file", sealing.ids())));
    keys
}
