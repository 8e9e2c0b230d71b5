//! How a service's work is spread, `[host]` and `[dns]`: as keys.

use super::{Keys, fingerprint, joined, show};
use crate::config::model::{BalanceWay, Balancing, Dns, Host, Sticky};

pub fn service(balancing: &Balancing, keys: &mut Keys) {
    let Balancing { way, sticky, slow_start, tier_spill, zone_spill } = balancing;
    let balance = match way {
        BalanceWay::Hash { by, bound } => {
            keys.insert("hash_by", by.to_string());
            keys.extend(bound.map(|bound| ("hash_bound", bound.to_string())));
            "hash".to_owned()
        }
        way => way.to_string(),
    };
    keys.insert("balance", balance);
    keys.insert("slow_start", show(*slow_start));
    keys.insert("tier_spill", tier_spill.to_string());
    keys.insert("zone_spill", zone_spill.to_string());
    if let Some(Sticky { name, max_age, secure, http_only, same_site, path, keep_drained, key }) = sticky {
        keys.insert("sticky.name", name.to_string());
        keys.extend(max_age.map(|max_age| ("sticky.max_age", show(max_age))));
        keys.extend(secure.map(|secure| ("sticky.secure", secure.to_string())));
        keys.insert("sticky.http_only", http_only.to_string());
        keys.insert("sticky.same_site", same_site.name().to_lowercase());
        keys.insert("sticky.path", path.to_string());
        keys.insert("sticky.keep_drained", keep_drained.to_string());
        keys.extend(
            key.as_ref().map(|key| ("sticky.key_file", format!("a secret ({})", fingerprint(&key.0)))),
        );
    }
}

pub fn host(Host { zone }: &Host) -> Keys {
    zone.iter().map(|zone| ("zone", zone.to_string())).collect()
}

pub fn dns(Dns { servers, min_ttl, max_ttl, timeout }: &Dns) -> Keys {
    let mut keys =
        Keys::from([("min_ttl", show(*min_ttl)), ("max_ttl", show(*max_ttl)), ("timeout", show(*timeout))]);
    if !servers.is_empty() {
        keys.insert("servers", joined(servers));
    }
    keys
}
