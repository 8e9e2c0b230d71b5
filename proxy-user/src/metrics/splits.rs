//! What variants of splits answered, and how requests are shared out between them.

use super::{
    exposition::{Exposition, Kind},
    flag,
};
use crate::admin::status::splits::SplitStatus;

pub fn tell(out: &mut Exposition, splits: &[SplitStatus]) {
    let variants =
        || splits.iter().flat_map(|split| split.variants.iter().map(move |variant| (split, variant)));
    let mut family = out.family(
        "weir_split_variant_weight",
        Kind::Gauge,
        "The weight of a variant of a split now; only the ratio to the others counts.",
    );
    for (split, variant) in variants() {
        family.sample(&[("split", &split.name), ("variant", &variant.name)], variant.weight.into());
    }
    let mut family = out.family(
        "weir_split_variant_requests_total",
        Kind::Counter,
        "Requests that were meant for the variant, whoever answered them.",
    );
    for (split, variant) in variants() {
        family.sample(&[("split", &split.name), ("variant", &variant.name)], variant.all.requests as f64);
    }
    let mut family = out.family(
        "weir_split_variant_errors_total",
        Kind::Counter,
        "Of these, those answered with 500 or more (`status`), and those without an answer (`connection`).",
    );
    for (split, variant) in variants() {
        for (kind, count) in
            [("status", variant.all.errors_5xx), ("connection", variant.all.errors_connection)]
        {
            let labels = [("split", &*split.name), ("variant", &*variant.name), ("kind", kind)];
            family.sample(&labels, count as f64);
        }
    }
    let mut family = out.family(
        "weir_split_went_back",
        Kind::Gauge,
        "1 while a split's judge has taken the new variant back, and nobody has decided how to go on.",
    );
    for split in splits {
        let went_back = split.judge.as_ref().is_some_and(|judge| judge.state == "went_back");
        family.sample(&[("split", &split.name)], flag(went_back));
    }
}
