//! This host in its fleet.

use super::{
    exposition::{Exposition, Kind},
    flag,
};
use crate::admin::status::fleet::MemberStatus;

/// Nothing, where there is no fleet.
pub fn tell(out: &mut Exposition, member: Option<&MemberStatus>) {
    let Some(member) = member else { return };
    let mut family = out.family(
        "weir_fleet_store_up",
        Kind::Gauge,
        "0 while the fleet's store is away, and this host goes on with what it has.",
    );
    family.sample(&[], flag(member.endpoint.is_some()));
    let halted = member.halted.as_ref();
    let figures = [
        (
            "weir_fleet_generation",
            "The generation of the fleet that this host runs; absent while it runs none.",
            member.standing.generation.map(|generation| generation as f64),
        ),
        (
            "weir_fleet_wanted_generation",
            "The generation of the fleet that is meant for this host, as far as it knows.",
            member.wanted.map(|generation| generation as f64),
        ),
        (
            "weir_fleet_taken_back_generation",
            "The last generation that was taken back; absent if none was since the last push.",
            halted.map(|halted| halted.generation as f64),
        ),
        (
            "weir_fleet_taken_back_timestamp_seconds",
            "When that was.",
            halted.map(|halted| halted.at as f64 / 1000.0),
        ),
    ];
    for (name, help, value) in figures {
        let mut family = out.family(name, Kind::Gauge, help);
        if let Some(value) = value {
            family.sample(&[], value);
        }
    }
    let mut family = out.family(
        "weir_fleet_hosts",
        Kind::Gauge,
        "Hosts of the fleet: there now, and gone (they were there once).",
    );
    for (state, count) in [("there", member.hosts), ("gone", member.hosts_gone)] {
        if let Some(count) = count {
            family.sample(&[("state", state)], count as f64);
        }
    }
}
