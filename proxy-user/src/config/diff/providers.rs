//! What changes of where further configuration comes from.

use super::{Keys, authorities, fingerprint, joined, show};
use crate::config::model::{Consul, Directory, HttpSource, Provider, ProviderSource};

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
    }
    keys
}
