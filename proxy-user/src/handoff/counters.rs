//! What a daemon has counted, by names that another release understands: its successor goes on from there, and metrics never fall.
//!
//! One walk over a snapshot reads the counters and adds to them, so nothing can be given away under one name and taken under
//! another. What the successor doesn't have any more is passed over.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    service::Service,
    snapshot::{Entrypoint, Snapshot},
    variants::{MadeOf, figures::Figures},
};

/// By name; what is 0 is left out.
pub type Counts = BTreeMap<String, u64>;

/// Everything that was counted up to now.
pub fn read(snapshot: &Snapshot) -> Counts {
    let mut counts = Counts::new();
    each(snapshot, &mut |name, counter| {
        let count = counter.load(Ordering::Relaxed);
        if count > 0 {
            counts.insert(name, count);
        }
    });
    counts
}

/// Adds what another daemon has counted.
pub fn add(snapshot: &Snapshot, counts: &Counts) {
    if counts.is_empty() {
        return;
    }
    each(snapshot, &mut |name, counter| {
        if let Some(count) = counts.get(&name) {
            counter.fetch_add(*count, Ordering::Relaxed);
        }
    });
}

/// What was counted since `before`.
pub fn since(now: &Counts, before: &Counts) -> Counts {
    let more = now.iter().map(|(name, count)| {
        (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or_default()))
    });
    more.filter(|(_, count)| *count > 0).collect()
}

fn each(snapshot: &Snapshot, tell: &mut dyn FnMut(String, &AtomicU64)) {
    for entrypoint in &snapshot.entrypoints {
        of_entrypoint(entrypoint, &mut |name, counter| {
            tell(format!("entrypoint/{}/{name}", entrypoint.name), counter);
        });
    }
    for (route, requests) in snapshot.config.routes.iter().zip(&snapshot.route_requests) {
        tell(format!("route/{}", route.name), requests);
    }
    for service in &snapshot.services {
        of_service(service, &mut |name, counter| {
            tell(format!("service/{}/{name}", service.name), counter);
        });
    }
}

fn of_entrypoint(entrypoint: &Entrypoint, tell: &mut dyn FnMut(String, &AtomicU64)) {
    let counters = &*entrypoint.counters;
    for (name, counter) in [
        ("accepted", &counters.accepted),
        ("not_listed", &counters.not_listed),
        ("blocked", &counters.blocked),
        ("would_turn_away", &counters.would_turn_away),
        ("handshake_failures", &counters.handshake_failures),
        ("requests", &counters.requests),
    ] {
        tell(name.to_owned(), counter);
    }
    counters.faults.each().for_each(|(name, counter)| tell(format!("fault/{name}"), counter));
    counters.halts.each().for_each(|(name, counter)| tell(format!("halt/{name}"), counter));
    counters.pages.each().for_each(|(name, counter)| tell(format!("page/{name}"), counter));
    counters.hellos.each().for_each(|(name, counter)| tell(format!("hello/{name}"), counter));
}

fn of_service(service: &Service, tell: &mut dyn FnMut(String, &AtomicU64)) {
    let counters = &*service.counters;
    for (name, counter) in [
        ("requests", &counters.requests),
        ("retries", &counters.retries),
        ("pages", &counters.pages),
        ("errors", &counters.errors),
    ] {
        tell(name.to_owned(), counter);
    }
    let (buckets, micros) = counters.waits.each();
    tell("waits/micros".to_owned(), micros);
    numbered("waits", buckets, tell);
    if let Some(hedging) = &service.hedging {
        let (hedged, won) = hedging.counters();
        tell("hedged".to_owned(), hedged);
        tell("hedges_won".to_owned(), won);
    }
    if let Some(breaker) = &service.breaker {
        tell("breaker_refused".to_owned(), breaker.refused_counter());
    }
    for server in &service.servers {
        let (counters, carrying) = (&*server.counters, &*server.counters.carrying);
        for (name, counter) in [
            ("requests", &counters.requests),
            ("failures", &counters.failures),
            ("carried/connections", &carrying.connections),
            ("carried/failures", &carrying.failures),
            ("carried/to_server", &carrying.to_server),
            ("carried/to_client", &carrying.to_client),
        ] {
            tell(format!("server/{}/{name}", server.label), counter);
        }
    }
    match &service.made_of {
        Some(MadeOf::Split(split)) => {
            for variant in &split.variants {
                of_figures(&format!("variant/{}", variant.service.name), &variant.figures, tell);
            }
        }
        Some(MadeOf::Mirror(mirror)) => {
            of_figures("mirror", &mirror.counters.figures, tell);
            tell("mirror/dropped".to_owned(), &mirror.counters.dropped);
            tell("mirror/too_long".to_owned(), &mirror.counters.too_long);
        }
        Some(MadeOf::Failover(_)) | None => {}
    }
}

fn of_figures(whose: &str, figures: &Figures, tell: &mut dyn FnMut(String, &AtomicU64)) {
    let (answered, [statuses, connections]) = figures.each();
    tell(format!("{whose}/statuses"), statuses);
    tell(format!("{whose}/connections"), connections);
    numbered(&format!("{whose}/answered"), answered, tell);
}

fn numbered(name: &str, counters: &[AtomicU64], tell: &mut dyn FnMut(String, &AtomicU64)) {
    for (number, counter) in counters.iter().enumerate() {
        tell(format!("{name}/{number}"), counter);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::{acme::Board, config};

    fn snapshot(services: &str) -> Snapshot {
        let text = format!(
            "[entrypoint.web]\nbind = '127.0.0.1:80'\n{services}\n[[route]]\nname = 'all'\nservice = 'app'\n"
        );
        let loaded =
            config::load_text(Path::new("weir.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
        Snapshot::new(loaded.config.into(), &Board::default().into(), None).unwrap()
    }

    const APP: &str = "[service.app]\nservers = ['127.0.0.1:1', '127.0.0.1:2']\n";

    #[test]
    fn every_counter_has_a_name_of_its_own_and_what_was_counted_goes_on() {
        let before = snapshot(APP);
        let mut names = BTreeSet::new();
        each(&before, &mut |name, counter| {
            counter.store(names.len() as u64 + 1, Ordering::Relaxed);
            assert!(names.insert(name.clone()), "{name} is told twice");
        });
        let after = snapshot(APP);
        add(&after, &read(&before));
        add(&after, &Counts::from([("route/all".to_owned(), 5), ("route/gone".to_owned(), 7)]));
        let (before, after) = (read(&before), read(&after));
        assert_eq!(since(&after, &before), Counts::from([("route/all".to_owned(), 5)]));
        assert_eq!(since(&before, &after), Counts::new());
    }

    #[test]
    fn a_server_that_is_not_there_any_more_is_passed_over() {
        let before = snapshot(APP);
        before.services[0].servers[0].counters.requests.store(3, Ordering::Relaxed);
        before.services[0].servers[1].counters.requests.store(4, Ordering::Relaxed);
        let after = snapshot("[service.app]\nservers = ['127.0.0.1:2', '127.0.0.1:3']\n");
        add(&after, &read(&before));
        let requests = |nth: usize| after.services[0].servers[nth].counters.requests.load(Ordering::Relaxed);
        assert_eq!([requests(0), requests(1)], [4, 0]);
    }
}
