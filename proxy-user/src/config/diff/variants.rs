//! What a service that is made of others is made of, as text.

use super::{
    super::model::{Config, Judge, MadeOf, Mirror, ServiceId, Split},
    Keys, joined, show, show_size,
};
use crate::config::value::show_share;

pub(super) fn made_of(config: &Config, made_of: &MadeOf) -> Keys {
    let name = |id: &ServiceId| &config.services[id.0].name;
    match made_of {
        MadeOf::Split(Split { variants, sticky, fall_over, judge }) => {
            let weights = variants.iter().map(|(id, weight)| format!("{} = {weight}", name(id)));
            let mut keys = Keys::from([("split", joined(weights)), ("fall_over", fall_over.to_string())]);
            keys.extend(sticky.as_ref().map(|cookie| ("sticky", format!("cookie:{cookie}"))));
            if let Some(judge) = judge {
                let Judge { variant, steps, every, margin_errors, margin_latency, confidence, min_samples } =
                    judge;
                keys.extend([
                    ("judge.variant", name(variant).to_string()),
                    ("judge.steps", joined(steps)),
                    ("judge.every", show(*every)),
                    ("judge.margin_errors", show_share(*margin_errors)),
                    ("judge.margin_latency", show_share(*margin_latency)),
                    ("judge.confidence", show_share(*confidence)),
                    ("judge.min_samples", min_samples.to_string()),
                ]);
            }
            keys
        }
        MadeOf::Failover(parts) => [("failover", joined(parts.iter().map(name)))].into(),
        MadeOf::Mirror(Mirror { service, to, share, body_limit, at_once, timeout }) => [
            ("service", name(service).to_string()),
            ("mirror.to", name(to).to_string()),
            ("mirror.share", show_share(*share)),
            ("mirror.body_limit", show_size(*body_limit)),
            ("mirror.at_once", at_once.to_string()),
            ("mirror.timeout", show(*timeout)),
        ]
        .into(),
    }
}
