//! What Consul's catalog tells: which services there are, and one instance of one.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::providers::{composed::safe_name, labels::discovered::Thing};

/// What Weir's weights go up to.
const HEAVIEST: u32 = 256;

/// One of a service's instances, with its node and its checks (`/v1/health/service/NAME`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    /// Of proxies and gateways of Consul's mesh. Plain services have none.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    create_index: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// The services that have tags of ours.
pub fn names(body: &[u8]) -> Result<Vec<String>, String> {
    let all: BTreeMap<String, Option<Vec<String>>> = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is not a list of services: {error}"))?;
    if all.is_empty() {
        // Consul's own servers are in it. What a token may not read is left out without a word.
        return Err(
            "it names no service at all, not even its own: may the token read services and nodes?".to_owned()
        );
    }
    let ours = |tags: &Option<Vec<String>>| tags.iter().flatten().any(|tag| tag.starts_with("weir."));
    Ok(all.into_iter().filter(|(_, tags)| ours(tags)).map(|(name, _)| name).collect())
}

/// As part of a path.
pub fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Instance {
    /// What it says. `zones`: where it is, is its zone.
    pub fn thing(self, zones: bool) -> Option<Thing> {
        let Self { node, service, checks } = self;
        // A sidecar carries its service's tags, and speaks the mesh's own TLS.
        if !service.kind.is_empty() {
            return None;
        }
        let tags = service.tags.unwrap_or_default();
        let ours = tags.iter().filter(|tag| tag.starts_with("weir."));
        // A tag alone says that it is so.
        let labels = ours.map(|tag| tag.split_once('=').unwrap_or((tag, "true")));
        let labels: BTreeMap<_, _> =
            labels.map(|(label, text)| (label.trim().to_owned(), text.trim().to_owned())).collect();
        if labels.is_empty() {
            return None;
        }
        let address = if service.address.is_empty() { node.address } else { service.address };
        let weight = service.weights.map(|weights| weights.passing.clamp(1, HEAVIEST));
        Some(Thing {
            document: format!("instance/{}/{}/{}", node.datacenter, node.node, service.id),
            title: format!("instance {} on node {}", service.id, node.node),
            labels,
            service: safe_name(&[&service.service]),
            ready: checks.iter().flatten().all(|check| check.status == "passing"),
            made: i64::try_from(service.create_index).unwrap_or(i64::MAX),
            host: if address.is_empty() { Err("it has no address".to_owned()) } else { Ok(address) },
            ports: (service.port > 0).then_some(service.port).into_iter().collect(),
            weight: weight.filter(|weight| *weight != 1),
            zone: (zones && !node.datacenter.is_empty()).then_some(node.datacenter),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(change: impl FnOnce(&mut serde_json::Value)) -> Option<Thing> {
        let mut told = json!({
            "Node": { "Node": "n1", "Address": "10.1.0.1", "Datacenter": "dc2" },
            "Service": {
                "ID": "shop-1", "Service": "shop.v2", "Tags": ["v2", "weir.enable", "weir.service.a.port = 81"],
                "Address": "10.2.0.1", "Port": 80, "Weights": { "Passing": 1000, "Warning": 1 }, "CreateIndex": 7,
            },
            "Checks": [{ "Status": "passing" }],
        });
        change(&mut told);
        serde_json::from_value::<Instance>(told).unwrap().thing(true)
    }

    #[test]
    fn an_instance_tells_where_it_is_and_how_heavy() {
        let thing = instance(|_| {}).unwrap();
        assert_eq!((&*thing.document, thing.host), ("instance/dc2/n1/shop-1", Ok("10.2.0.1".to_owned())));
        assert_eq!((thing.weight, thing.zone.as_deref(), thing.ready), (Some(256), Some("dc2"), true));
        assert_eq!(thing.labels["weir.enable"], "true");
        assert_eq!(thing.labels["weir.service.a.port"], "81");
        assert!(thing.service.starts_with("shop-v2-"), "{}", thing.service);
        let of_node = instance(|told| told["Service"]["Address"] = "".into()).unwrap();
        assert_eq!(of_node.host, Ok("10.1.0.1".to_owned()));
    }

    #[test]
    fn sidecars_and_services_without_tags_of_ours_are_nobodys_servers() {
        assert!(instance(|told| told["Service"]["Kind"] = "connect-proxy".into()).is_none());
        assert!(instance(|told| told["Service"]["Tags"] = json!(["v2"])).is_none());
        assert!(instance(|told| told["Service"]["Tags"] = json!(null)).is_none());
    }

    #[test]
    fn names_go_into_paths_as_they_may_stand_there() {
        assert_eq!(encoded("shop.v2"), "shop.v2");
        assert_eq!(encoded("a b/c?"), "a%20b%2Fc%3F");
    }
}
