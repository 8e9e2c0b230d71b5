//! One interval as plain text: for pipes, logs, and `--once`.

use std::fmt::Write as _;

use super::{
    figures::amount,
    interval::{EntrypointRate, Gate, Interface, Interval, List, Rate},
};
use crate::cli::allowlist::ago;

/// So many sources are told.
const SOURCES: usize = 10;

pub fn of(interval: &Interval) -> String {
    let mut text = format!("over {:.1} s\n", interval.seconds);
    let fleet = interval.fleet.iter().map(|fleet| fleet.line.clone());
    for line in [gate(&interval.gate), daemon(interval), lists(&interval.lists)].into_iter().chain(fleet) {
        text.push_str(&line);
        text.push('\n');
    }
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "\n{:<24}{:>10}{:>10}{:>13}{:>12}",
        "entrypoint", "passed/s", "dropped/s", "would drop/s", "requests/s"
    );
    for one in &interval.entrypoints {
        text.push_str(&entrypoint(one));
    }
    sources(&mut text, interval);
    for one in interval.entrypoints.iter().filter(|one| !one.would_drop_from.is_empty()) {
        let _ = writeln!(text, "\nwould be dropped at {}, from            packets/s", one.name);
        for source in one.would_drop_from.iter().take(SOURCES) {
            let _ = writeln!(text, "  {:<43}{:>5}", source.prefix, packets(source.rate));
        }
    }
    if !interval.services.is_empty() {
        let _ = writeln!(text, "\n{:<40}{:>10}{:>12}", "service", "requests/s", "failures/s");
    }
    for service in &interval.services {
        let pages = match amount(service.pages_per_second) {
            none if none == "0" => String::new(),
            pages => format!("  {pages} pages/s"),
        };
        let _ = writeln!(text, "{:<40}{:>10}{pages}", service.name, amount(service.requests_per_second));
        for server in &service.servers {
            let name = format!("  {} {}", server.address, server.status);
            let why = if matches!(&*server.status, "down" | "draining") {
                format!("  {}", server.why)
            } else {
                String::new()
            };
            let (requests, failures) = (server.requests_per_second, server.failures_per_second);
            let _ = writeln!(text, "{name:<40}{:>10}{:>12}{why}", amount(requests), amount(failures));
        }
    }
    text
}

/// `gate: generation 12, edge0 tcx`
pub fn gate(gate: &Gate) -> String {
    match gate {
        Gate::Absent => "gate: nothing of Weir's is in the kernel".to_owned(),
        Gate::Unreadable { why } => format!("gate: CAN'T BE READ: {why}"),
        Gate::On { generation, interfaces } => {
            let generation = generation.map_or_else(|| "none yet".to_owned(), |number| number.to_string());
            let on: Vec<_> = interfaces.iter().map(interface).collect();
            let on = if on.is_empty() { "on no interface".to_owned() } else { on.join(", ") };
            format!("gate: generation {generation}, {on}")
        }
    }
}

fn interface(one: &Interface) -> String {
    let gone = if one.gone { " (IT IS GONE)" } else { "" };
    format!("{} {}{gone}", one.name, one.hook.unwrap_or("?"))
}

pub fn daemon(interval: &Interval) -> String {
    match &interval.daemon_trouble {
        None if interval.draining => "daemon: DRAINING".to_owned(),
        None => "daemon: answers".to_owned(),
        Some(why) => format!("daemon: DOESN'T ANSWER, what follows is the kernel's own: {why}"),
    }
}

/// `lists: cloudflare 22 prefixes, 2h 11m old`
pub fn lists(lists: &[List]) -> String {
    // What is cut off should not be the trouble.
    let (bad, good): (Vec<_>, Vec<_>) = lists.iter().partition(|list| list.last_error.is_some());
    let lists: Vec<_> = bad.into_iter().chain(good).map(list).collect();
    format!("lists: {}", if lists.is_empty() { "none".to_owned() } else { lists.join("; ") })
}

fn list(list: &List) -> String {
    let mut text = format!("{} {} prefixes", list.name, list.prefixes);
    if let Some(seconds) = list.age_seconds {
        let _ = write!(text, ", {} old", ago(seconds));
    }
    if list.last_error.is_some() {
        text.push_str(" (REFRESH FAILED)");
    }
    text
}

fn entrypoint(one: &EntrypointRate) -> String {
    let gate =
        |rate: Rate| if one.guarded || one.name.starts_with('(') { packets(rate) } else { "-".to_owned() };
    let requests = one.requests_per_second.map_or_else(|| "-".to_owned(), amount);
    let name = if one.shadow { format!("{} (SHADOW)", one.name) } else { one.name.clone() };
    let mut text = format!(
        "{name:<24}{:>10}{:>10}{:>13}{requests:>12}\n",
        gate(one.passed),
        gate(one.dropped),
        if one.shadow { packets(one.would_drop) } else { "-".to_owned() }
    );
    for (reason, rate) in &one.dropped_by_reason {
        let _ = writeln!(text, "  {reason:<32}{:>10}", packets(*rate));
    }
    for (reason, rate) in &one.would_drop_by_reason {
        let _ = writeln!(text, "  {:<32}{:>23}", format!("would drop: {reason}"), packets(*rate));
    }
    text
}

fn sources(text: &mut String, interval: &Interval) {
    if let Some(why) = &interval.sampling_trouble {
        let _ = writeln!(text, "\nsources of drops are not known: {why}");
    }
    if interval.sources_sampled.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n{:<34}{:>10}{:>7}  entrypoint, reason",
        "dropped from (sampled)", "packets/s", "share"
    );
    for source in interval.sources_sampled.iter().take(SOURCES) {
        let _ = writeln!(
            text,
            "  {:<32}{:>10}{:>6.0}%  {}, {}",
            source.prefix.as_deref().unwrap_or("can't be read"),
            amount(source.packets_per_second),
            source.share * 100.0,
            source.entrypoint,
            source.reason
        );
    }
    let more = interval.sources_sampled.len().saturating_sub(SOURCES);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn packets(rate: Rate) -> String {
    amount(rate.packets_per_second)
}
