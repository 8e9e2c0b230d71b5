//! What happened between two readings, per second. Pure.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use crate::{
    admin::status::{ServiceStatus, StatusDocument, drains::DrainStatus, fleet::MemberStatus},
    kernel::{
        Hook,
        meter::Reading,
        sources::{self, Sample, SourceRate, since},
        status::{EntrypointStatus, Tally},
    },
};

/// All that is known at one moment, or why it isn't.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at: Instant,
    /// `None`: nothing of Weir's is in the kernel.
    pub kernel: Result<Option<Reading>, String>,
    pub daemon: Result<StatusDocument, String>,
}

/// What was heard of single drops since the moment before; or why nothing could be.
pub type Heard = Result<Vec<Sample>, String>;

/// Rates over the time between two moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    pub seconds: f64,
    pub gate: Gate,
    /// Why the daemon doesn't answer. `None`: it does. Without it, all that is in the kernel is known all the same.
    pub daemon_trouble: Option<String>,
    pub draining: bool,
    /// `None`: this host is in no fleet.
    pub fleet: Option<Member>,
    pub entrypoints: Vec<EntrypointRate>,
    /// Where drops came from: estimated from a sample, and scaled by the exact counters. The busiest first.
    pub sources_sampled: Vec<SourceRate>,
    /// Why there is no sample. Drops that no sample was got of are in no prefix.
    pub sampling_trouble: Option<String>,
    pub services: Vec<ServiceRate>,
    pub lists: Vec<List>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Gate {
    On {
        generation: Option<u64>,
        interfaces: Vec<Interface>,
    },
    /// Nothing of Weir's is in the kernel.
    Absent,
    Unreadable {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interface {
    pub name: String,
    /// `None`: the pin is of no kind that Weir makes.
    pub hook: Option<&'static str>,
    /// The interface is gone; the gate is on it again when it is back.
    pub gone: bool,
}

/// This host in its fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Member {
    pub line: String,
    pub is_odd: bool,
}

impl Member {
    fn of(status: &MemberStatus) -> Self {
        Self { line: status.line(), is_odd: status.is_odd() }
    }
}

/// What the gate did to an entrypoint's packets, and what the daemon did for those that passed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EntrypointRate {
    pub name: String,
    /// Whether the gate guards it.
    pub guarded: bool,
    /// Nothing is dropped here: what would be is counted, and passes.
    pub shadow: bool,
    pub passed: Rate,
    pub dropped: Rate,
    /// By reason; only those for which there was something.
    pub dropped_by_reason: BTreeMap<String, Rate>,
    pub would_drop: Rate,
    pub would_drop_by_reason: BTreeMap<String, Rate>,
    /// Exact, the busiest first.
    pub would_drop_from: Vec<PrefixRate>,
    /// `None`: only the daemon knows.
    pub requests_per_second: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    pub packets_per_second: f64,
    pub bytes_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrefixRate {
    /// IPv4 by /24, IPv6 by /48.
    pub prefix: String,
    #[serde(flatten)]
    pub rate: Rate,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceRate {
    pub name: String,
    pub requests_per_second: f64,
    pub retries_per_second: f64,
    /// Answers that are a page of Weir's own.
    pub pages_per_second: f64,
    pub servers: Vec<ServerRate>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerRate {
    pub address: String,
    /// `starting`, `up`, `down`, `unchecked`, or `draining`.
    pub status: String,
    pub why: String,
    pub requests_per_second: f64,
    pub failures_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct List {
    pub name: String,
    pub prefixes: u64,
    /// Since its source last said that this is the list. `None`: it isn't fetched, or the daemon doesn't answer.
    pub age_seconds: Option<u64>,
    pub last_error: Option<String>,
}

// === impl Interval ===

impl Interval {
    pub fn between(before: &Moment, now: &Moment, heard: Heard) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let old = before.kernel.as_ref().ok().and_then(Option::as_ref);
        let new = now.kernel.as_ref().ok().and_then(Option::as_ref);
        let documents = (before.daemon.as_ref().ok(), now.daemon.as_ref().ok());
        let (samples, sampling_trouble) = match heard {
            Ok(samples) => (samples, None),
            // What isn't there can't be heard.
            Err(why) => (Vec::new(), new.map(|_| why)),
        };
        Self {
            seconds,
            gate: gate(&now.kernel),
            daemon_trouble: now.daemon.as_ref().err().cloned(),
            draining: documents.1.is_some_and(|document| document.draining),
            fleet: documents.1.and_then(|document| document.fleet.as_ref()).map(Member::of),
            entrypoints: entrypoints(old, new, documents, seconds),
            sources_sampled: sources::rank(&samples, &sources::dropped(old, new), seconds),
            sampling_trouble,
            services: services(documents, seconds),
            lists: lists(new, documents.1),
        }
    }
}

fn gate(kernel: &Result<Option<Reading>, String>) -> Gate {
    match kernel {
        Err(why) => Gate::Unreadable { why: why.clone() },
        Ok(None) => Gate::Absent,
        Ok(Some(Reading { status, .. })) => Gate::On {
            generation: status.generation,
            interfaces: status
                .interfaces
                .iter()
                .map(|one| Interface {
                    name: one.name.clone(),
                    hook: one.hook.map(Hook::name),
                    gone: one.index.is_none(),
                })
                .collect(),
        },
    }
}

type Documents<'a> = (Option<&'a StatusDocument>, Option<&'a StatusDocument>);

fn entrypoints(
    old: Option<&Reading>,
    new: Option<&Reading>,
    documents: Documents<'_>,
    seconds: f64,
) -> Vec<EntrypointRate> {
    let before = |name: &str| old?.status.entrypoints.iter().find(|one| one.name == name);
    let in_kernel = new.map_or(&[][..], |reading| &reading.status.entrypoints);
    let mut rates: Vec<EntrypointRate> = in_kernel
        .iter()
        .map(|one| entrypoint(before(&one.name), one, seconds))
        // One that is guarded no more, or packets of no entrypoint: told only while there are any.
        .filter(|rate| rate.guarded || rate.dropped.packets_per_second > 0.0)
        .collect();
    let (Some(first), Some(last)) = documents else { return rates };
    for one in &last.entrypoints {
        let known = first.entrypoints.iter().find(|known| known.name == one.name);
        let requests = per_second(known.map(|known| known.requests), one.requests, seconds);
        match rates.iter_mut().find(|rate| rate.name == one.name) {
            Some(rate) => rate.requests_per_second = Some(requests),
            None => rates.push(EntrypointRate {
                name: one.name.clone(),
                requests_per_second: Some(requests),
                ..EntrypointRate::default()
            }),
        }
    }
    rates
}

fn entrypoint(before: Option<&EntrypointStatus>, now: &EntrypointStatus, seconds: f64) -> EntrypointRate {
    let by_reason = |was: Option<&BTreeMap<&'static str, Tally>>, is: &BTreeMap<&'static str, Tally>| {
        let rates = is.iter().map(|(reason, tally)| {
            let was = was.and_then(|was| was.get(reason)).copied();
            ((*reason).to_owned(), rate(was, *tally, seconds))
        });
        rates.filter(|(_, rate)| rate.packets_per_second > 0.0).collect::<BTreeMap<_, _>>()
    };
    let dropped = by_reason(before.map(|before| &before.dropped), &now.dropped);
    let would_drop = by_reason(before.map(|before| &before.would_drop), &now.would_drop);
    let mut would_drop_from: Vec<PrefixRate> = now
        .would_drop_from
        .iter()
        .map(|source| {
            let tally = |packets, bytes| Tally { packets, bytes };
            let was = before
                .and_then(|before| before.would_drop_from.iter().find(|known| known.prefix == source.prefix));
            let was = was.map(|was| tally(was.packets, was.bytes));
            let rate = rate(was, tally(source.packets, source.bytes), seconds);
            PrefixRate { prefix: source.prefix.to_string(), rate }
        })
        .filter(|source| source.rate.packets_per_second > 0.0)
        .collect();
    would_drop_from.sort_by(|one, other| {
        let rates = (one.rate.packets_per_second, other.rate.packets_per_second);
        rates.1.total_cmp(&rates.0).then_with(|| one.prefix.cmp(&other.prefix))
    });
    EntrypointRate {
        name: now.name.clone(),
        guarded: !now.guards.is_empty(),
        shadow: now.shadow,
        passed: rate(before.map(|before| before.passed), now.passed, seconds),
        dropped: sum(&dropped),
        dropped_by_reason: dropped,
        would_drop: sum(&would_drop),
        would_drop_by_reason: would_drop,
        would_drop_from,
        requests_per_second: None,
    }
}

fn sum(rates: &BTreeMap<String, Rate>) -> Rate {
    rates.values().fold(Rate::default(), |sum, rate| Rate {
        packets_per_second: sum.packets_per_second + rate.packets_per_second,
        bytes_per_second: sum.bytes_per_second + rate.bytes_per_second,
    })
}

fn services((first, last): Documents<'_>, seconds: f64) -> Vec<ServiceRate> {
    let Some(last) = last else { return Vec::new() };
    let known = |name: &str| first?.services.iter().find(|service| service.name == name);
    last.services.iter().map(|service| self::service(known(&service.name), service, seconds)).collect()
}

fn service(before: Option<&ServiceStatus>, now: &ServiceStatus, seconds: f64) -> ServiceRate {
    let rate = |of: fn(&ServiceStatus) -> u64| per_second(before.map(of), of(now), seconds);
    let servers = now.servers.iter().map(|server| {
        let was = before.and_then(|before| before.servers.iter().find(|was| was.address == server.address));
        ServerRate {
            address: server.address.clone(),
            status: server.draining.as_ref().map_or_else(|| server.status.clone(), |_| "draining".to_owned()),
            why: server.draining.as_ref().map_or_else(|| server.why.clone(), DrainStatus::sentence),
            requests_per_second: per_second(was.map(|was| was.requests), server.requests, seconds),
            failures_per_second: per_second(was.map(|was| was.failures), server.failures, seconds),
        }
    });
    ServiceRate {
        name: now.name.clone(),
        requests_per_second: rate(|service| service.requests),
        retries_per_second: rate(|service| service.retries),
        pages_per_second: rate(|service| service.pages),
        servers: servers.collect(),
    }
}

/// From the daemon, which knows how old they are; without it, those that the kernel was given.
fn lists(kernel: Option<&Reading>, daemon: Option<&StatusDocument>) -> Vec<List> {
    if let Some(daemon) = daemon {
        let lists = daemon.allowlists.iter().filter(|list| !list.entrypoints.is_empty());
        return lists
            .map(|list| List {
                name: list.name.clone(),
                prefixes: (list.prefixes_v4 + list.prefixes_v6) as u64,
                age_seconds: list.fetched.as_ref().and_then(|fetched| fetched.age_seconds),
                last_error: list.fetched.as_ref().and_then(|fetched| fetched.last_error.clone()),
            })
            .collect();
    }
    let lists = kernel.map_or(&[][..], |reading| &reading.status.lists);
    let list = |list: &crate::kernel::status::ListStatus| List {
        name: list.name.clone(),
        prefixes: list.prefixes,
        age_seconds: None,
        last_error: None,
    };
    lists.iter().map(list).collect()
}

fn rate(before: Option<Tally>, now: Tally, seconds: f64) -> Rate {
    Rate {
        packets_per_second: per_second(before.map(|before| before.packets), now.packets, seconds),
        bytes_per_second: per_second(before.map(|before| before.bytes), now.bytes, seconds),
    }
}

fn per_second(before: Option<u64>, now: u64, seconds: f64) -> f64 {
    since(before, now) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_does_not_count_backwards() {
        for (before, now, counted) in [(Some(10), 25, 15), (Some(25), 25, 0), (Some(25), 4, 4), (None, 4, 4)]
        {
            assert_eq!(since(before, now), counted, "{before:?} → {now}");
        }
        assert!((per_second(Some(10), 25, 0.5) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn an_entrypoint_drops_per_second_by_reason_and_prefix() {
        let status = |listed: u64, unlisted: u64, from: u64| EntrypointStatus {
            name: "https".to_owned(),
            slot: 1,
            guards: vec!["198.51.100.1:443/tcp".to_owned()],
            passed: Tally { packets: listed, bytes: listed * 100 },
            dropped: [
                ("not_listed", Tally { packets: unlisted, bytes: 60 * unlisted }),
                ("truncated", Tally::default()),
            ]
            .into(),
            challenged: Tally::default(),
            syn_flood: None,
            shadow: false,
            would_challenge: Tally::default(),
            would_drop: BTreeMap::new(),
            would_drop_from: vec![crate::kernel::ShadowedSource {
                prefix: "203.0.113.0/24".parse().unwrap(),
                packets: from,
                bytes: from,
            }],
        };
        let rate = entrypoint(Some(&status(100, 1_000, 7)), &status(150, 5_000, 7), 2.0);
        assert!((rate.passed.packets_per_second - 25.0).abs() < 1e-9);
        assert!((rate.dropped.packets_per_second - 2_000.0).abs() < 1e-9);
        assert!((rate.dropped.bytes_per_second - 120_000.0).abs() < 1e-9);
        assert_eq!(rate.dropped_by_reason.keys().collect::<Vec<_>>(), ["not_listed"], "nothing is no reason");
        assert!(rate.would_drop_from.is_empty(), "it sent nothing of late");
        let rate = entrypoint(Some(&status(100, 1_000, 7)), &status(150, 5_000, 17), 2.0);
        assert!((rate.would_drop_from[0].rate.packets_per_second - 5.0).abs() < 1e-9);
    }
}
