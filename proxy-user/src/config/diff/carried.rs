//! What changes of routes that carry connections untouched.

use super::{Keys, joined};
use crate::config::model::{CarriedRoute, Config};

pub fn route(config: &Config, one: &CarriedRoute) -> Keys {
    let CarriedRoute { name: _, entrypoints, sni, service, on_outage } = one;
    let sni = if sni.is_empty() { "any".to_owned() } else { joined(sni) };
    let mut keys = Keys::from([
        ("entrypoint", joined(entrypoints.iter().map(|id| &config.entrypoints[id.0].name))),
        ("sni", sni),
        ("passthrough", config.services[service.0].name.to_string()),
    ]);
    keys.extend(on_outage.map(|page| ("on_outage", format!("page:{}", config.pages[page.0].name))));
    keys
}
