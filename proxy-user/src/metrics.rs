//! Everything that is counted: `GET /metrics`, as Prometheus scrapes it, and what [`push`] sends to a collector.
//!
//! Nothing is counted here. A scrape reads the same status that `weir status` shows, and the kernel's counters, so that
//! no two places can disagree; the request path knows nothing of metrics but its plain atomic adds. Names and units
//! follow Prometheus' conventions (<https://prometheus.io/docs/practices/naming/>). Labels hold names out of the
//! configuration, addresses of servers, and reasons out of fixed sets: never a path, a client or a Host field, so a
//! scrape is as long as the configuration and no longer.

mod accept;
mod carried;
mod exposition;
mod forwarding;
mod logs;
mod process;
mod shared;
pub mod push;
mod fleet;
mod providers;
mod splits;

use std::time::SystemTime;

use jiff::Timestamp;

use crate::{
    admin::status::{
        self, EntrypointStatus, GateStatus, ServiceStatus, StatusDocument, allowlists::AllowlistStatus,
    },
    control::state::ControlState,
    kernel::{
        self, KernelStatus,
        status::{EntrypointStatus as GateEntrypoint, Tally},
    },
    otlp::proto::Message,
    service::waits,
};
pub use accept::wanted;
pub use exposition::Format;
use exposition::{Bucket, Example, Exposition, Kind};

/// All metrics now, as text; `None` while the daemon starts.
pub async fn scrape(state: &ControlState, format: Format) -> Option<String> {
    let mut out = Exposition::in_text(format);
    tell_all(&mut out, state).await?;
    Some(out.text())
}

/// All metrics now, as the fields of a `ScopeMetrics`; `None` while the daemon starts.
async fn measured(state: &ControlState) -> Option<Message> {
    let mut out = Exposition::in_otlp(state.started.into(), SystemTime::now());
    tell_all(&mut out, state).await?;
    Some(out.metrics())
}

async fn tell_all(out: &mut Exposition, state: &ControlState) -> Option<()> {
    let status = status::of(state).await?;
    let snapshot = state.running()?.load_full();
    let bpffs = snapshot.config.kernel.bpffs.clone();
    let observed = tokio::task::spawn_blocking(move || kernel::observe(&bpffs)).await;
    // No gate, or no right to look: all the rest is told all the same.
    let kernel = observed.ok().and_then(Result::ok).flatten();
    of_daemon(out, &status);
    of_gate(out, &status.gate, kernel.as_ref());
    of_entrypoints(out, &status.entrypoints);
    of_services(out, &status.services);
    carried::tell(out, &status.entrypoints, &status.services);
    forwarding::tell(out, &status.forwarding);
    splits::tell(out, &status.splits);
    providers::tell(out, &status.providers);
    shared::tell(out, status.shared.as_ref());
    fleet::tell(out, status.fleet.as_ref());
    out.family("weir_maintenance", Kind::Gauge, "Windows of maintenance that hold now (`weir maintenance`).")
        .sample(&[], status.maintenance.iter().filter(|one| one.on).count() as f64);
    of_allowlists(out, &status.allowlists);
    of_certificates(out, &status);
    process::tell(out);
    Some(())
}

fn of_daemon(out: &mut Exposition, status: &StatusDocument) {
    out.family("weir_build_info", Kind::Gauge, "The version that runs; always 1.")
        .sample(&[("version", &status.version)], 1.0);
    out.family("weir_draining", Kind::Gauge, "1 while this host takes no new work.")
        .sample(&[], flag(status.draining));
    out.family(
        "weir_config_generation",
        Kind::Gauge,
        "Counts up with each configuration that is taken over.",
    )
    .sample(&[], status.generation as f64);
    let configuration = &status.configuration;
    out.family(
        "weir_config_last_reload_successful",
        Kind::Gauge,
        "0 while the last configuration was refused.",
    )
    .sample(&[], flag(configuration.last_reload_ok));
    let mut family = out.family(
        "weir_config_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When a configuration was taken over or refused last.",
    );
    if let Ok(at) = configuration.last_reload.parse::<Timestamp>() {
        family.sample(&[], seconds(at));
    }
    out.family("weir_config_on_trial", Kind::Gauge, "1 while a configuration waits for `weir confirm`.")
        .sample(&[], flag(configuration.trial.is_some()));
    logs::tell(out, status);
    out.family(
        "weir_warnings",
        Kind::Gauge,
        "Conditions that should not stay as they are; `weir status` names them.",
    )
    .sample(&[], status.warnings.len() as f64);
}

fn of_gate(out: &mut Exposition, gate: &GateStatus, kernel: Option<&KernelStatus>) {
    let (wanted, on) = match gate {
        GateStatus::NotWanted => (false, false),
        GateStatus::Unavailable { .. } => (true, false),
        GateStatus::On { .. } => (true, true),
    };
    out.family("weir_gate_wanted", Kind::Gauge, "1 if the configuration wants a gate in the kernel.")
        .sample(&[], flag(wanted));
    out.family("weir_gate_enforcing", Kind::Gauge, "1 while the kernel enforces this daemon's lists.")
        .sample(&[], flag(on));
    let mut family =
        out.family("weir_gate_interface_info", Kind::Gauge, "Where the gate is attached; always 1.");
    if let GateStatus::On { interfaces, .. } = gate {
        for interface in interfaces {
            family.sample(&[("interface", &interface.name), ("hook", &interface.hook)], 1.0);
        }
    }
    let entrypoints = kernel.map(|kernel| &kernel.entrypoints[..]).unwrap_or_default();
    type Of = for<'a> fn(&'a GateEntrypoint) -> Vec<(&'static str, Tally)>;
    let passed: Of = |one| vec![("", one.passed)];
    let challenged: Of = |one| vec![("", one.challenged)];
    let dropped: Of = |one| one.dropped.iter().map(|(reason, tally)| (*reason, *tally)).collect();
    let would_drop: Of = |one| one.would_drop.iter().map(|(reason, tally)| (*reason, *tally)).collect();
    for (name, what, tallies) in [
        ("passed", "that the gate let in", passed),
        ("challenged", "that the gate answered with a SYN cookie", challenged),
        ("dropped", "that the gate dropped", dropped),
        ("would_drop", "that the gate would have dropped, had the entrypoint not been shadowed", would_drop),
    ] {
        for (unit, plural, of) in [
            ("packets", "Packets", (|tally: Tally| tally.packets) as fn(Tally) -> u64),
            ("bytes", "Bytes of packets", |tally: Tally| tally.bytes),
        ] {
            let (name, help) = (format!("weir_gate_{name}_{unit}_total"), format!("{plural} {what}."));
            let mut family = out.family(&name, Kind::LastingCounter, &help);
            for one in entrypoints {
                for (reason, tally) in tallies(one) {
                    let labels = [("entrypoint", &*one.name), ("reason", reason)];
                    let labels = if reason.is_empty() { &labels[..1] } else { &labels[..] };
                    family.sample(labels, of(tally) as f64);
                }
            }
        }
    }
    let mut family = out.family(
        "weir_gate_syn_flood",
        Kind::Gauge,
        "1 while the gate sees a flood of SYNs and answers it.",
    );
    for one in entrypoints {
        if let Some(flood) = &one.syn_flood {
            family.sample(&[("entrypoint", &one.name)], flag(flood.active && !flood.off));
        }
    }
}

fn of_entrypoints(out: &mut Exposition, entrypoints: &[EntrypointStatus]) {
    let mut family = out.family(
        "weir_entrypoint_accepted_connections_total",
        Kind::Counter,
        "Connections that were accepted, whatever became of them.",
    );
    for one in entrypoints {
        family.sample(&[("entrypoint", &one.name)], one.accepted as f64);
    }
    let mut family = out.family(
        "weir_entrypoint_turned_away_connections_total",
        Kind::Counter,
        "Connections that were closed at accept, because their peer is on no list or is blocked.",
    );
    for one in entrypoints {
        for (reason, count) in [("not_listed", one.not_listed), ("blocked", one.blocked)] {
            family.sample(&[("entrypoint", &one.name), ("reason", reason)], count as f64);
        }
    }
    let mut family =
        out.family("weir_entrypoint_open_connections", Kind::Gauge, "Connections that are open.");
    for one in entrypoints {
        family.sample(&[("entrypoint", &one.name)], one.connections.into());
    }
    let mut family = out.family(
        "weir_entrypoint_tls_handshake_failures_total",
        Kind::Counter,
        "TLS handshakes that clients broke off, or that failed.",
    );
    for one in entrypoints.iter().filter(|one| one.tls) {
        family.sample(&[("entrypoint", &one.name)], one.handshake_failures as f64);
    }
    let mut family = out.family(
        "weir_entrypoint_requests_total",
        Kind::Counter,
        "Requests that came in, whoever answered them.",
    );
    for one in entrypoints {
        family.sample(&[("entrypoint", &one.name)], one.requests as f64);
    }
    let mut family = out.family(
        "weir_entrypoint_refused_total",
        Kind::Counter,
        "Requests and connections that Weir refused or answered itself, by reason (docs/http.md, docs/middleware.md).",
    );
    for one in entrypoints {
        for (reason, count) in &one.refused {
            family.sample(&[("entrypoint", &one.name), ("reason", reason)], *count as f64);
        }
    }
    let mut family = out.family(
        "weir_entrypoint_pages_total",
        Kind::Counter,
        "Requests that a page answered in a server's place, by reason (docs/pages.md).",
    );
    for one in entrypoints {
        for (reason, count) in &one.pages {
            family.sample(&[("entrypoint", &one.name), ("reason", reason)], *count as f64);
        }
    }
}

fn of_services(out: &mut Exposition, services: &[ServiceStatus]) {
    for (name, help, of) in [
        (
            "weir_service_requests_total",
            "Requests that were sent to the service.",
            (|one| one.requests) as fn(&ServiceStatus) -> u64,
        ),
        (
            "weir_service_retries_total",
            "Attempts beyond the first, on another server or another connection.",
            |one| one.retries,
        ),
        (
            "weir_service_hedged_total",
            "Requests that two servers were asked at a time, since the first took long.",
            |one| one.hedged,
        ),
        ("weir_service_hedges_won_total", "Hedged requests that the second server answered first.", |one| {
            one.hedges_won
        }),
        ("weir_service_pages_total", "Requests that got the service's page instead of an answer.", |one| {
            one.pages
        }),
        (
            "weir_service_errors_total",
            "Answers of its servers with a status of 500 or more that clients got.",
            |one| one.errors,
        ),
    ] {
        let mut family = out.family(name, Kind::Counter, help);
        for one in services {
            family.sample(&[("service", &one.name)], of(one) as f64);
        }
    }
    let mut family = out.family(
        "weir_service_answer_seconds",
        Kind::Histogram,
        "How long the service's answers took, up to their heads.",
    );
    let edges = || waits::EDGES.iter().map(|micros| Some(*micros as f64 / 1e6)).chain([None]);
    for one in services {
        let example = |nth| {
            let known = one.waits.examples.iter().find(|example| example.bucket == nth)?;
            Some(Example { trace: &known.trace_id, value: known.seconds, at: known.at })
        };
        let bucket = |(nth, (edge, count))| Bucket { edge, count, example: example(nth) };
        let counts = edges().zip(one.waits.buckets.iter().copied()).enumerate();
        let buckets: Vec<_> = counts.map(bucket).collect();
        family.buckets(&[("service", &one.name)], &buckets, one.waits.seconds);
    }
    let servers =
        || services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)));
    let mut family = out.family(
        "weir_server_up",
        Kind::Gauge,
        "1 if the server is well: it is up, or nobody probes it (docs/failover.md).",
    );
    for (service, server) in servers() {
        let up = matches!(&*server.status, "up" | "unchecked");
        family.sample(&[("service", &service.name), ("server", &server.address)], flag(up));
    }
    let mut family =
        out.family("weir_server_falls_total", Kind::Counter, "Times that the server was up and went down.");
    for (service, server) in servers() {
        let labels = [("service", &*service.name), ("server", &*server.address)];
        family.sample(&labels, f64::from(server.falls));
    }
    let mut family = out.family(
        "weir_server_draining",
        Kind::Gauge,
        "1 if the server gets no new work, however well it is (docs/rolling.md).",
    );
    for (service, server) in servers() {
        let labels = [("service", &*service.name), ("server", &*server.address)];
        family.sample(&labels, flag(server.draining.is_some()));
    }
    let mut family = out.family(
        "weir_server_active_requests",
        Kind::Gauge,
        "Requests and upgraded connections that the server has under way.",
    );
    for (service, server) in servers() {
        let labels = [("service", &*service.name), ("server", &*server.address)];
        family.sample(&labels, f64::from(server.active));
    }
    let mut family =
        out.family("weir_server_requests_total", Kind::Counter, "Attempts that went to the server.");
    for (service, server) in servers() {
        let labels = [("service", &*service.name), ("server", &*server.address)];
        family.sample(&labels, server.requests as f64);
    }
    let mut family =
        out.family("weir_server_failures_total", Kind::Counter, "Attempts that the server failed.");
    for (service, server) in servers() {
        let labels = [("service", &*service.name), ("server", &*server.address)];
        family.sample(&labels, server.failures as f64);
    }
}

fn of_allowlists(out: &mut Exposition, lists: &[AllowlistStatus]) {
    let mut family = out.family("weir_allowlist_prefixes", Kind::Gauge, "Prefixes that are in force.");
    for one in lists {
        for (version, count) in [("4", one.prefixes_v4), ("6", one.prefixes_v6)] {
            family.sample(&[("allowlist", &one.name), ("ip_version", version)], count as f64);
        }
    }
    let fetched = || lists.iter().filter_map(|one| Some((one, one.fetched.as_ref()?)));
    let mut family = out.family(
        "weir_allowlist_age_seconds",
        Kind::Gauge,
        "Since the list's source last said that this is the list; absent until it has.",
    );
    for (one, fetched) in fetched() {
        if let Some(age) = fetched.age_seconds {
            family.sample(&[("allowlist", &one.name)], age as f64);
        }
    }
    let mut family = out.family(
        "weir_allowlist_fetch_failures_total",
        Kind::Counter,
        "Fetches that failed or whose list was refused.",
    );
    for (one, fetched) in fetched() {
        family.sample(&[("allowlist", &one.name)], fetched.failures as f64);
    }
    let mut family =
        out.family("weir_allowlist_last_fetch_successful", Kind::Gauge, "0 while the last fetch has failed.");
    for (one, fetched) in fetched() {
        family.sample(&[("allowlist", &one.name)], flag(fetched.last_error.is_none()));
    }
}

fn of_certificates(out: &mut Exposition, status: &StatusDocument) {
    let mut family = out.family(
        "weir_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        "When the certificate is no longer valid.",
    );
    for one in status.certificates.iter().filter(|one| one.not_after != 0) {
        let name = one.names.first().map_or("", String::as_str);
        // Two files may hold certificates for the same first name, and one file several certificates.
        let labels = [("entrypoint", &*one.entrypoint), ("name", name), ("file", &*one.file)];
        family.sample(&labels, one.not_after as f64);
    }
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
