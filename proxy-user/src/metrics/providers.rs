//! Where further configuration comes from.

use super::{
    exposition::{Exposition, Kind},
    flag,
};
use crate::admin::status::providers::ProviderStatus;

pub fn tell(out: &mut Exposition, providers: &[ProviderStatus]) {
    let mut family = out.family(
        "weir_provider_up",
        Kind::Gauge,
        "0 while a provider's source is away, and its last good documents stay in force.",
    );
    for one in providers {
        family.sample(&[("provider", &one.name), ("kind", &one.kind)], flag(one.state == "fresh"));
    }
    let mut family = out.family(
        "weir_provider_age_seconds",
        Kind::Gauge,
        "Since the provider's source last said that this is what it has; absent until it has.",
    );
    for one in providers {
        if let Some(age) = one.age_seconds {
            family.sample(&[("provider", &one.name)], age as f64);
        }
    }
    let counts: [(&str, &str, fn(&ProviderStatus) -> usize); 3] = [
        ("weir_provider_documents", "Documents of the provider that run.", |one| one.documents),
        (
            "weir_provider_faults",
            "Documents that are not as the provider's source has them: a last good version stays, or they are left out.",
            |one| one.faults.len(),
        ),
        (
            "weir_provider_conflicts",
            "Names in the provider's documents that are left out, since they are defined before.",
            |one| one.conflicts.len(),
        ),
    ];
    for (name, help, count) in counts {
        let mut family = out.family(name, Kind::Gauge, help);
        for one in providers {
            family.sample(&[("provider", &one.name)], count(one) as f64);
        }
    }
}
