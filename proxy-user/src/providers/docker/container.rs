//! A container as the API tells of it, and what that says: its labels, where it is reached, whether it may take work.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::providers::{composed::safe_name, labels::discovered::Thing};

const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Of what `compose run` starts: a command, and no server.
const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// Where a container is reached that has the host's own network.
const HOST: &str = "127.0.0.1";

/// In the list of all.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
}

/// On its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    name: String,
    #[serde(default)]
    created: String,
    state: State,
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    /// `80/tcp`.
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    v4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    v6: String,
}

impl Listed {
    /// Whether it has labels of ours.
    pub fn is_ours(&self) -> bool {
        self.labels.iter().flat_map(BTreeMap::keys).any(|label| label.starts_with("weir."))
    }
}

impl Container {
    /// Whether the list tells nothing else of it. Events may be lost.
    pub fn is_still(&self, listed: &Listed) -> bool {
        self.state.status == listed.state
    }

    /// What it says. `network`: where it is reached if it is in several.
    pub fn thing(&self, network: Option<&str>) -> Option<Thing> {
        let labels = self.config.labels.clone().unwrap_or_default();
        if labels.get(COMPOSE_ONE_OFF).is_some_and(|one_off| one_off.eq_ignore_ascii_case("true")) {
            return None;
        }
        let name = self.name.trim_start_matches('/');
        let service = match (labels.get(COMPOSE_PROJECT), labels.get(COMPOSE_SERVICE)) {
            (Some(project), Some(service)) => safe_name(&[project, service]),
            _ => safe_name(&[name]),
        };
        let mut ports: Vec<u16> =
            self.config.exposed_ports.iter().flat_map(BTreeMap::keys).filter_map(|port| tcp(port)).collect();
        ports.sort_unstable();
        ports.dedup();
        let made: Option<jiff::Timestamp> = self.created.parse().ok();
        Some(Thing {
            document: format!("container/{name}"),
            title: format!("container {name}"),
            service,
            ready: self.is_ready(),
            made: made.map_or(0, jiff::Timestamp::as_millisecond),
            host: self.host(labels.get("weir.network").map(String::as_str), network),
            ports,
            labels,
            weight: None,
            zone: None,
        })
    }

    /// Paused, restarting and stopped ones take no work; nor do those whose health check hasn't gone well yet, or not any more.
    fn is_ready(&self) -> bool {
        // Podman has an empty one where there is no check.
        let health = self.state.health.as_ref().map_or("", |health| &health.status);
        self.state.status == "running" && matches!(health, "" | "none" | "healthy")
    }

    fn host(&self, asked: Option<&str>, by_default: Option<&str>) -> Result<String, String> {
        match self.host_config.network_mode.as_str() {
            "host" => return Ok(HOST.to_owned()),
            "none" => return Err("it has no network".to_owned()),
            mode if mode.starts_with("container:") => {
                return Err("it has another container's network".to_owned());
            }
            _ => {}
        }
        let networks = self.network_settings.networks.iter().flatten();
        let reached: BTreeMap<&str, &str> = networks
            .filter_map(|(name, network)| {
                let Network { v4, v6 } = network.as_ref()?;
                let address = if v4.is_empty() { v6 } else { v4 };
                (!address.is_empty()).then_some((name.as_str(), address.as_str()))
            })
            .collect();
        if let Some(asked) = asked {
            let there = reached.get(asked.trim());
            return there
                .map(|address| (*address).to_owned())
                .ok_or_else(|| format!("label `weir.network`: it has no address in the network `{asked}`"));
        }
        if let Some(address) = by_default.and_then(|network| reached.get(network)) {
            return Ok((*address).to_owned());
        }
        let mut all = reached.values();
        match (all.next(), all.next()) {
            (None, _) => Err("it has no address".to_owned()),
            (Some(only), None) => Ok((*only).to_owned()),
            _ => {
                let names: Vec<_> = reached.keys().copied().collect();
                Err(format!(
                    "it is in the networks {}: label `weir.network`, or the provider's `network`, must say which",
                    names.join(", ")
                ))
            }
        }
    }
}

fn tcp(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp").unwrap_or(port).parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(change: impl FnOnce(&mut serde_json::Value)) -> Thing {
        // As Docker tells it, shortened to what is read.
        let mut told = json!({
            "Id": "a1", "Name": "/shop-web-1", "Created": "2026-01-02T03:04:05.678901234Z",
            "State": { "Status": "running", "Running": true, "Health": { "Status": "healthy", "FailingStreak": 0 } },
            "Config": {
                "Labels": { "weir.enable": "true", COMPOSE_PROJECT: "shop", COMPOSE_SERVICE: "web" },
                "ExposedPorts": { "8080/tcp": {}, "53/udp": {} },
            },
            "HostConfig": { "NetworkMode": "shop_default" },
            "NetworkSettings": { "Networks": {
                "shop_default": { "IPAddress": "172.18.0.3", "GlobalIPv6Address": "" },
            } },
        });
        change(&mut told);
        serde_json::from_value::<Container>(told).unwrap().thing(Some("edge")).unwrap()
    }

    #[test]
    fn a_container_is_called_as_compose_does_and_reached_in_its_network() {
        let thing = container(|_| {});
        assert_eq!((&*thing.document, &*thing.service), ("container/shop-web-1", "shop_web"));
        assert_eq!((thing.host, thing.ports, thing.ready), (Ok("172.18.0.3".to_owned()), vec![8080], true));
        assert_eq!(thing.made, 1_767_323_045_678);
        let alone = container(|told| told["Config"]["Labels"] = json!({ "weir.enable": "true" }));
        assert_eq!(alone.service, "shop-web-1");
    }

    #[test]
    fn only_a_container_that_runs_and_is_well_takes_work() {
        for (status, health, ready) in [
            ("running", json!({ "Status": "starting" }), false),
            ("running", json!({ "Status": "unhealthy" }), false),
            ("running", json!({ "Status": "" }), true),
            ("running", json!(null), true),
            ("exited", json!(null), false),
            ("paused", json!({ "Status": "healthy" }), false),
            ("restarting", json!(null), false),
        ] {
            let thing = container(|told| told["State"] = json!({ "Status": status, "Health": health }));
            assert_eq!(thing.ready, ready, "{status} {health}");
        }
    }

    #[test]
    fn of_several_networks_one_must_be_meant() {
        let net = |v4: &str, v6: &str| json!({ "IPAddress": v4, "GlobalIPv6Address": v6 });
        let host = |networks: serde_json::Value, asked: Option<&str>| {
            container(|told| {
                told["NetworkSettings"]["Networks"] = networks;
                if let Some(asked) = asked {
                    told["Config"]["Labels"]["weir.network"] = asked.into();
                }
            })
            .host
        };
        let two = json!({ "a": net("172.18.0.3", ""), "b": net("172.19.0.3", "") });
        assert!(host(two.clone(), None).unwrap_err().starts_with("it is in the networks a, b: "));
        assert_eq!(host(two.clone(), Some("b")).unwrap(), "172.19.0.3");
        assert!(host(two, Some("c")).unwrap_err().starts_with("label `weir.network`: "));
        let with_default = json!({ "a": net("172.18.0.3", ""), "edge": net("", "fd00::3") });
        assert_eq!(host(with_default, None).unwrap(), "fd00::3");
        assert_eq!(host(json!({ "a": net("", ""), "b": null }), None).unwrap_err(), "it has no address");
        assert_eq!(
            container(|told| told["HostConfig"]["NetworkMode"] = "host".into()).host.unwrap(),
            "127.0.0.1"
        );
    }

    #[test]
    fn a_command_that_compose_runs_is_no_server() {
        let mut told = json!({
            "Name": "/x", "State": { "Status": "running" }, "Config": { "Labels": { COMPOSE_ONE_OFF: "True" } },
        });
        assert!(serde_json::from_value::<Container>(told.clone()).unwrap().thing(None).is_none());
        told["Config"]["Labels"] = json!(null);
        assert!(serde_json::from_value::<Container>(told).unwrap().thing(None).is_some());
    }
}
