//! What a service that is made of others is made of, down to servers: the rest of a request's way.

use serde::{Deserialize, Serialize};

use super::Explanation;
use crate::config::{
    model::{Config, MadeOf, ServiceId},
    show_share,
};

/// A service within a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Part {
    pub service: String,
    /// The one that it is a part of.
    pub within: String,
    /// How many services that is deep.
    pub depth: usize,
    /// Of a split's variant: its weight, and the sum of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<(u32, u32)>,
    /// When it gets a request.
    pub when: String,
    /// Empty, where it is made of others itself.
    pub servers: Vec<String>,
}

/// All parts of a service, each before its own.
pub fn of(config: &Config, service: ServiceId, depth: usize) -> Vec<Part> {
    let whole = &config.services[service.0];
    let part = |id: ServiceId, weight, when: String| {
        let service = &config.services[id.0];
        let part = Part {
            service: service.name.to_string(),
            within: whole.name.to_string(),
            depth,
            weight,
            when,
            servers: service.servers.iter().map(ToString::to_string).collect(),
        };
        std::iter::once(part).chain(of(config, id, depth + 1)).collect::<Vec<_>>()
    };
    match &whole.made_of {
        None => Vec::new(),
        Some(MadeOf::Split(split)) => {
            let total = split.variants.iter().map(|(_, weight)| weight).sum();
            let variants = split.variants.iter();
            variants
                .flat_map(|(id, weight)| part(*id, Some((*weight, total)), share(*weight, total)))
                .collect()
        }
        Some(MadeOf::Failover(parts)) => parts
            .iter()
            .enumerate()
            .flat_map(|(nth, id)| {
                let when = if nth == 0 { "first" } else { "when none before it can answer" };
                part(*id, None, when.to_owned())
            })
            .collect(),
        Some(MadeOf::Mirror(mirror)) => {
            let mut parts = part(mirror.service, None, "answers".to_owned());
            parts.extend(part(mirror.to, None, format!("gets copies of {}", show_share(mirror.share))));
            parts
        }
    }
}

fn share(weight: u32, total: u32) -> String {
    format!("{:.1} % of requests", f64::from(weight) * 100.0 / f64::from(total.max(1)))
}

impl Explanation {
    /// With the weights that hold now; `of` gives that of a split's variant, and their sum.
    #[must_use]
    pub fn with_weights(mut self, of: impl Fn(&str, &str) -> Option<(u32, u32)>) -> Self {
        for part in self.ways.iter_mut().flat_map(|way| &mut way.parts) {
            if let Some((weight, total)) = of(&part.within, &part.service)
                && part.weight.is_some_and(|configured| configured != (weight, total))
            {
                part.weight = Some((weight, total));
                part.when = format!("{}, as set at run time", share(weight, total));
            }
        }
        self
    }
}
