//! What the hosts of a fleet tell each other.

use super::{
    exposition::{Exposition, Kind},
    flag,
};
use crate::fleet::shared::board::SharedStatus;

pub fn tell(out: &mut Exposition, shared: Option<&SharedStatus>) {
    let Some(shared) = shared else { return };
    out.family(
        "weir_fleet_shared_up",
        Kind::Gauge,
        "0 while the fleet's store is away or forbidden: what is switched here stays here, and nothing is heard of the others.",
    )
    .sample(&[], flag(shared.away.is_none()));
    out.family("weir_fleet_switches_unsaid", Kind::Gauge, "Switches that the other hosts don't know yet.")
        .sample(&[], shared.unsaid as f64);
    let mut family = out.family(
        "weir_fleet_switches_total",
        Kind::Counter,
        "Switches (blocks, maintenance, weights, drains) that others were told of, that were taken up from them, and that could not be.",
    );
    let switches = [
        ("told", shared.switches_told),
        ("taken", shared.switches_taken),
        ("refused", shared.switches_refused),
    ];
    for (what, count) in switches {
        family.sample(&[("what", what)], count as f64);
    }
    let mut family = out.family(
        "weir_fleet_hints_total",
        Kind::Counter,
        "Servers that others were told of as failing, and servers that were probed at once since others told of them.",
    );
    for (what, count) in [("told", shared.hints_told), ("taken", shared.hints_taken)] {
        family.sample(&[("what", what)], count as f64);
    }
    out.family(
        "weir_fleet_passed_over_total",
        Kind::Counter,
        "Values that other hosts should have written, and that can't be understood.",
    )
    .sample(&[], shared.passed_over as f64);
}
