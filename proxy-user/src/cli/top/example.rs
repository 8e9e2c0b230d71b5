//! An interval for tests: a flood, a rehearsal, an entrypoint that isn't guarded, a server that is down.

use std::collections::BTreeMap;

use super::interval::{
    EntrypointRate, Gate, Interface, Interval, List, PrefixRate, Rate, ServerRate, ServiceRate,
};
use crate::kernel::sources::SourceRate;

pub fn interval() -> Interval {
    let rate = |packets: f64| Rate { packets_per_second: packets, bytes_per_second: packets * 60.0 };
    let by_reason = |reasons: &[(&str, f64)]| -> BTreeMap<String, Rate> {
        reasons.iter().map(|(reason, packets)| ((*reason).to_owned(), rate(*packets))).collect()
    };
    let prefix = |prefix: &str, packets| PrefixRate { prefix: prefix.to_owned(), rate: rate(packets) };
    let source = |prefix: &str, packets: f64| SourceRate {
        prefix: Some(prefix.to_owned()),
        entrypoint: "https".to_owned(),
        reason: "not_listed".to_owned(),
        packets_per_second: packets,
        share: packets / 120_012.0,
    };
    let server = |address: &str, status: &str, why: &str| ServerRate {
        address: address.to_owned(),
        status: status.to_owned(),
        why: why.to_owned(),
        requests_per_second: 60.0,
        failures_per_second: 0.0,
    };
    let list = |name: &str, prefixes, age_seconds, last_error: Option<&str>| List {
        name: name.to_owned(),
        prefixes,
        age_seconds,
        last_error: last_error.map(str::to_owned),
    };
    Interval {
        seconds: 1.0,
        gate: Gate::On {
            generation: Some(12),
            interfaces: vec![
                Interface { name: "eth0".to_owned(), hook: Some("xdp"), gone: false },
                Interface { name: "veth7".to_owned(), hook: Some("tcx"), gone: true },
            ],
        },
        daemon_trouble: None,
        draining: false,
        fleet: None,
        entrypoints: vec![
            EntrypointRate {
                name: "https".to_owned(),
                guarded: true,
                passed: rate(420.0),
                dropped: rate(120_012.0),
                dropped_by_reason: by_reason(&[("not_listed", 120_000.0), ("truncated", 12.0)]),
                requests_per_second: Some(118.0),
                ..EntrypointRate::default()
            },
            EntrypointRate {
                name: "trial".to_owned(),
                guarded: true,
                shadow: true,
                passed: rate(900.0),
                would_drop: rate(31.0),
                would_drop_by_reason: by_reason(&[("not_listed", 31.0)]),
                would_drop_from: vec![prefix("192.0.2.0/24", 30.0), prefix("2001:db8:7::/48", 1.0)],
                requests_per_second: Some(2.0),
                ..EntrypointRate::default()
            },
            EntrypointRate {
                name: "open".to_owned(),
                requests_per_second: Some(0.0),
                ..EntrypointRate::default()
            },
        ],
        sources_sampled: vec![source("203.0.113.0/24", 110_012.0), source("2001:db8:bad::/48", 10_000.0)],
        sampling_trouble: None,
        services: vec![ServiceRate {
            name: "app".to_owned(),
            requests_per_second: 120.0,
            retries_per_second: 0.0,
            pages_per_second: 0.0,
            servers: vec![
                server("10.0.0.11:8080", "up", "2 probes in a row succeeded"),
                server("10.0.0.12:8080", "down", "refused the connection"),
            ],
        }],
        lists: vec![
            list("cloudflare", 22, Some(7_860), None),
            list("office", 3, None, None),
            list("cdn", 4_100, Some(90_000), Some("timed out")),
        ],
    }
}
