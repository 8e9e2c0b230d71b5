//! Where drops come from, estimated. Pure.
//!
//! The gate counts drops exactly, but not by source: that would cost each packet of a flood a map entry. It tells of
//! single packets instead, so many by CPU and time. Each CPU's sample stands for what that CPU has dropped for the same
//! entrypoint and reason: were all samples thrown together, a trickle on one CPU, told whole, would look as large as the
//! flood on another.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use proxy_common::shadow::{PREFIX_V4, PREFIX_V6};
use serde::{Deserialize, Serialize};

use super::{meter::Reading, watch};
use crate::packet;

/// One drop that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub cpu: u16,
    pub entrypoint: String,
    pub reason: &'static str,
    /// `None`: it can't be read out of the packet.
    pub source: Option<IpAddr>,
}

/// What a prefix sent to an entrypoint, as far as a sample can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceRate {
    /// IPv4 by /24, IPv6 by /48. `None`: it can't be read out of the packets.
    pub prefix: Option<String>,
    pub entrypoint: String,
    /// The one of most of its packets.
    pub reason: String,
    pub packets_per_second: f64,
    /// Of all that was dropped, from 0 to 1.
    pub share: f64,
}

/// Of an entrypoint and a reason: how much each CPU has dropped.
pub type Dropped = HashMap<(String, &'static str), Vec<u64>>;

/// How much was dropped between two readings.
pub fn dropped(before: Option<&Reading>, now: Option<&Reading>) -> Dropped {
    let Some(now) = now else { return Dropped::new() };
    let of = |kind: &(String, &'static str), cpu: usize| before?.dropped_by_cpu.get(kind)?.get(cpu).copied();
    let between = |(kind, shares): (&(String, &'static str), &Vec<u64>)| {
        let shares = shares.iter().enumerate().map(|(cpu, share)| since(of(kind, cpu), *share));
        (kind.clone(), shares.collect())
    };
    now.dropped_by_cpu.iter().map(between).collect()
}

/// The prefixes that most was dropped of, the busiest first.
pub fn rank(samples: &[Sample], dropped: &Dropped, seconds: f64) -> Vec<SourceRate> {
    // How many samples stand for what a CPU dropped.
    let mut heard: HashMap<(&str, &str, u16), u64> = HashMap::new();
    for sample in samples {
        *heard.entry((&sample.entrypoint, sample.reason, sample.cpu)).or_default() += 1;
    }
    let mut packets: BTreeMap<(Option<IpNet>, &str), BTreeMap<&'static str, f64>> = BTreeMap::new();
    for Sample { cpu, entrypoint, reason, source } in samples {
        let shares = dropped.get(&(entrypoint.clone(), *reason));
        let share = shares.and_then(|shares| shares.get(usize::from(*cpu))).copied().unwrap_or_default();
        let stands_for = share as f64 / heard[&(entrypoint.as_str(), *reason, *cpu)] as f64;
        *packets.entry((source.map(prefix), entrypoint)).or_default().entry(reason).or_default() +=
            stands_for;
    }
    let all: u64 = dropped.values().flatten().sum();
    let mut rates: Vec<SourceRate> = packets
        .into_iter()
        .filter_map(|((prefix, entrypoint), reasons)| {
            let sum: f64 = reasons.values().sum();
            let (reason, _) = reasons.into_iter().max_by(|one, other| one.1.total_cmp(&other.1))?;
            (sum > 0.0).then(|| SourceRate {
                prefix: prefix.map(|prefix| prefix.to_string()),
                entrypoint: entrypoint.to_owned(),
                reason: reason.to_owned(),
                packets_per_second: sum / seconds,
                share: sum / all as f64,
            })
        })
        .collect();
    rates.sort_by(busiest_first);
    rates
}

fn busiest_first(one: &SourceRate, other: &SourceRate) -> Ordering {
    other
        .packets_per_second
        .total_cmp(&one.packets_per_second)
        .then_with(|| (&one.prefix, &one.entrypoint).cmp(&(&other.prefix, &other.entrypoint)))
}

/// A counter that is smaller than before, or that wasn't there, began at nothing in between.
pub fn since(before: Option<u64>, now: u64) -> u64 {
    match before {
        Some(before) if before <= now => now - before,
        _ => now,
    }
}

impl From<watch::Dropped> for Sample {
    fn from(dropped: watch::Dropped) -> Self {
        let source = packet::parse(&dropped.head).map(|headers| headers.source);
        Self { cpu: dropped.cpu, entrypoint: dropped.entrypoint, reason: dropped.reason, source }
    }
}

/// As the gate counts those that it only would drop.
fn prefix(source: IpAddr) -> IpNet {
    let source = source.to_canonical();
    let length = if source.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
    IpNet::new_assert(source, length).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(u16, &str, &'static str, &str, usize)]) -> Vec<Sample> {
        let repeated = of.iter().flat_map(|(cpu, entrypoint, reason, source, times)| {
            let sample = Sample {
                cpu: *cpu,
                entrypoint: (*entrypoint).to_owned(),
                reason,
                source: source.parse().ok(),
            };
            std::iter::repeat_n(sample, *times)
        });
        repeated.collect()
    }

    fn drops(of: &[(&str, &'static str, &[u64])]) -> Dropped {
        let kind = |(entrypoint, reason, shares): &(&str, &'static str, &[u64])| {
            (((*entrypoint).to_owned(), *reason), shares.to_vec())
        };
        of.iter().map(kind).collect()
    }

    /// `prefix entrypoint reason per second share in percent`
    fn ranked(samples: &[Sample], dropped: &Dropped, seconds: f64) -> Vec<String> {
        let text = |rate: SourceRate| {
            let prefix = rate.prefix.unwrap_or_else(|| "?".to_owned());
            let share = (rate.share * 100.0).round();
            format!("{prefix} {} {} {:.0} {share}", rate.entrypoint, rate.reason, rate.packets_per_second)
        };
        rank(samples, dropped, seconds).into_iter().map(text).collect()
    }

    #[test]
    fn a_sample_stands_for_all_that_was_dropped() {
        let samples = samples(&[
            (0, "https", "not_listed", "203.0.113.9", 60),
            (0, "https", "not_listed", "203.0.113.77", 20),
            (0, "https", "not_listed", "2001:db8:bad:1::9", 20),
        ]);
        assert_eq!(
            ranked(&samples, &drops(&[("https", "not_listed", &[1_000_000])]), 2.0),
            ["203.0.113.0/24 https not_listed 400000 80", "2001:db8:bad::/48 https not_listed 100000 20"]
        );
    }

    #[test]
    fn a_trickle_that_is_told_whole_is_not_taken_for_a_flood() {
        let samples = samples(&[
            (0, "https", "not_listed", "203.0.113.9", 1_000),
            (1, "https", "not_listed", "198.51.100.9", 1_000),
        ]);
        assert_eq!(
            ranked(&samples, &drops(&[("https", "not_listed", &[999_000, 1_000])]), 1.0),
            ["203.0.113.0/24 https not_listed 999000 100", "198.51.100.0/24 https not_listed 1000 0"]
        );
    }

    #[test]
    fn entrypoints_are_told_apart_and_the_usual_reason_is_named() {
        let samples = samples(&[
            (0, "https", "not_listed", "203.0.113.9", 1),
            (0, "https", "truncated", "203.0.113.9", 1),
            (0, "smtp", "not_listed", "203.0.113.9", 1),
            (0, "smtp", "truncated", "no address", 1),
        ]);
        let dropped = drops(&[
            ("https", "not_listed", &[30]),
            ("https", "truncated", &[50]),
            ("smtp", "not_listed", &[19]),
            ("smtp", "truncated", &[1]),
        ]);
        assert_eq!(
            ranked(&samples, &dropped, 1.0),
            [
                "203.0.113.0/24 https truncated 80 80",
                "203.0.113.0/24 smtp not_listed 19 19",
                "? smtp truncated 1 1",
            ]
        );
    }

    #[test]
    fn what_was_told_but_not_counted_is_nobodys() {
        let samples = samples(&[(3, "https", "not_listed", "203.0.113.9", 5)]);
        assert!(ranked(&samples, &drops(&[("https", "not_listed", &[0, 0])]), 1.0).is_empty());
        assert!(ranked(&samples, &Dropped::new(), 1.0).is_empty());
    }
}
