//! `weir status` and `weir ping`

mod carried;
mod fleet;
mod providers;
mod shared;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    admin::{
        ready::{Check, ReadyDocument},
        status::{
            EntrypointStatus, GateStatus, ServerStatus, ServerWatchStatus, ShadowStatus, StatusDocument,
            SynFlood,
        },
    },
    cli::{
        Failure,
        admin::AdminArgs,
        print,
        table::{self, Cell, Table, Tone},
    },
    config,
};

/// With `--for`. A daemon that is killed is missed after half of it.
const PING_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct PingArgs {
    /// Also ask whether everything is in place: configuration, first probes, the gate
    #[arg(long)]
    ready: bool,
    /// Ask again and again for so long, and fail with the first bad answer: for checks that can't begin more often than once a
    /// second
    #[arg(long = "for", value_name = "TIME", value_parser = config::duration, conflicts_with = "json")]
    lasting: Option<Duration>,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let (status, body) = args.admin.get("/api/v1/status")?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}")));
    }
    if args.json {
        return print(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let document: StatusDocument = serde_json::from_slice(&body).map_err(|error| {
        Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
    })?;
    print(&text(&document, table::width()))
}

pub fn ping(args: &PingArgs) -> Result<(), Failure> {
    let end = args.lasting.map(|lasting| Instant::now() + lasting);
    while end.is_some_and(|end| Instant::now() + PING_EVERY < end) {
        ping_once(args, false)?;
        std::thread::sleep(PING_EVERY);
    }
    ping_once(args, true)
}

fn ping_once(args: &PingArgs, told: bool) -> Result<(), Failure> {
    if args.ready || args.json {
        return ready(args, told);
    }
    let (status, body) = args.admin.get("/ping")?;
    if status.is_success() {
        if told { print(&String::from_utf8_lossy(&body)) } else { Ok(()) }
    } else {
        Err(Failure::Failed(format!("the daemon is {}", String::from_utf8_lossy(&body).trim())))
    }
}

/// Without `--ready`, only what `/ping` asks counts, though all is told.
fn ready(args: &PingArgs, told: bool) -> Result<(), Failure> {
    let (status, body) = args.admin.get("/ready")?;
    let document: ReadyDocument = serde_json::from_slice(&body)
        .map_err(|_| Failure::Failed(format!("the daemon answered {status}: is it another version?")))?;
    if args.json {
        print(&format!("{}\n", String::from_utf8_lossy(&body)))?;
    }
    let counts = |check: &&Check| !check.ok && (args.ready || check.name == "traffic");
    let missing: Vec<_> =
        document.checks.iter().filter(counts).map(|check| format!("{}: {}", check.name, check.why)).collect();
    match (missing.is_empty(), args.json || !told) {
        (true, true) => Ok(()),
        (true, false) => print("ready\n"),
        (false, _) => Err(Failure::Failed(format!("not ready: {}", missing.join("; ")))),
    }
}

fn text(status: &StatusDocument, width: Option<usize>) -> String {
    let mut text = String::new();
    let draining = if status.draining { ", draining" } else { "" };
    // Writing to a String can't fail.
    let _ = writeln!(text, "weir {}, running since {}{draining}", status.version, status.started);
    for one in &status.predecessors {
        let _ = writeln!(
            text,
            "took over from weir {}, which has {} connections left and ends within {} s",
            one.version, one.connections, one.seconds_left
        );
    }
    if let Some(drain) = &status.host_drain {
        let _ = writeln!(
            text,
            "THIS HOST IS DRAINED since {}, {}: /ping fails until `weir undrain --host`",
            drain.since,
            drain.sentence()
        );
    }
    let configuration = &status.configuration;
    let _ = writeln!(
        text,
        "configuration: {}, generation {}, {} {}",
        configuration.path.as_deref().unwrap_or("embedded default"),
        status.generation,
        if configuration.last_reload_ok { "taken over" } else { "LAST RELOAD REFUSED" },
        configuration.last_reload,
    );
    if let Some(why) = &configuration.last_reload_error {
        let _ = writeln!(text, "{}", indented(why));
    }
    if let Some(trial) = &configuration.trial {
        let left = trial.seconds_left.ceil();
        let _ = writeln!(
            text,
            "ON TRIAL: {} goes again in {left} s, unless `weir confirm` keeps it (`weir revert` takes it back at once)",
            trial.name
        );
        if let Some(why) = &trial.failed {
            let _ = writeln!(text, "it could not be taken back, and is tried again: {why}");
        }
    }
    text.push_str(&providers::lines(&status.providers));
    if let Some(shared) = &status.shared {
        text.push_str(&shared::line(shared));
    }
    text.push_str(&fleet::lines(status.fleet.as_ref()));
    let _ = match &status.gate {
        GateStatus::NotWanted => writeln!(text, "gate: not attached (no interface is configured)"),
        GateStatus::Unavailable { why } => writeln!(text, "gate: NOT IN THE KERNEL: {why}"),
        GateStatus::On { interfaces, absent } => {
            let on = interfaces.iter().map(|one| format!("{} by {} ({})", one.name, one.hook, one.why));
            let gone = absent.iter().map(|name| format!("{name} when it is back (IT IS GONE)"));
            let on: Vec<_> = on.chain(gone).collect();
            writeln!(text, "gate: on {}", on.join(", "))
        }
    };
    let _ = writeln!(text, "privileges: {}", status.privileges);
    let _ = match &status.server_watch {
        ServerWatchStatus::NotWanted => Ok(()),
        ServerWatchStatus::On { cgroup } => {
            writeln!(text, "connections to servers: watched by the kernel (from {cgroup})")
        }
        ServerWatchStatus::Unavailable { why } => {
            writeln!(text, "connections to servers: not watched by the kernel: {why}")
        }
    };
    for entrypoint in &status.entrypoints {
        if let Some(shadow) = &entrypoint.shadow {
            let _ = write!(text, "{}", rehearsal(&entrypoint.name, shadow));
        }
    }
    for one in &status.maintenance {
        let _ = writeln!(text, "{}", super::maintenance::line(one));
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "WARNING: {warning}");
    }
    for entrypoint in &status.entrypoints {
        if !entrypoint.refused.is_empty() {
            let met: Vec<_> =
                entrypoint.refused.iter().map(|(name, count)| format!("{count} {name}")).collect();
            let _ = writeln!(text, "refused at `{}`: {}", entrypoint.name, met.join(", "));
        }
        if !entrypoint.pages.is_empty() {
            let shown: Vec<_> =
                entrypoint.pages.iter().map(|(why, count)| format!("{count} {why}")).collect();
            let _ = writeln!(text, "pages shown at `{}`: {}", entrypoint.name, shown.join(", "));
        }
        if let Some(SynFlood { seconds, challenged }) = &entrypoint.syn_flood {
            let _ = writeln!(
                text,
                "SYN FLOOD at `{}` for {seconds:.0} s: the gate has new connections proved ({challenged} SYNs answered with \
                 a cookie so far)",
                entrypoint.name
            );
        }
    }
    for service in &status.services {
        if let Some(breaker) = service.breaker.as_ref().filter(|breaker| breaker.state != "closed") {
            let why = breaker.why.as_deref().unwrap_or_default();
            let opened = breaker.opened.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "BREAKER of `{}` is {}: {why} ({opened}); {} requests got the page for it",
                service.name, breaker.state, breaker.refused
            );
        }
        if service.panics {
            let _ = writeln!(
                text,
                "PANIC: so few servers of `{}` are usable that all of them get requests",
                service.name
            );
        }
    }
    text.push_str(&super::flows::lines(&status.forwarding));
    for split in &status.splits {
        text.push_str(&super::split::line(split));
    }
    let (entrypoints, servers) = (entrypoints(&status.entrypoints), servers(status));
    let carried = carried::table(&status.services).map(|carried| format!("\n{}", carried.text(width)));
    format!(
        "{}\n{}\n{}{}",
        table::fitted(&text, width),
        entrypoints.text(width),
        servers.text(width),
        carried.unwrap_or_default()
    )
}

/// What a shadowed entrypoint lets pass.
fn rehearsal(name: &str, shadow: &ShadowStatus) -> String {
    let reasons = shadow.would_drop.iter().filter(|(_, packets)| **packets > 0);
    let reasons: Vec<_> = reasons.map(|(reason, packets)| format!("{packets} {reason}")).collect();
    let reasons = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
    let mut text = format!("SHADOW: nothing is dropped at `{name}`. It would have been:\n");
    // Writing to a String can't fail.
    let _ = writeln!(text, "  packets dropped by the gate: {reasons}");
    let _ = writeln!(text, "  connections turned away: {}", shadow.would_turn_away);
    for from in &shadow.would_drop_from {
        let _ = writeln!(text, "  from {}: {} packets, {} bytes", from.prefix, from.packets, from.bytes);
    }
    text
}

fn entrypoints(entrypoints: &[EntrypointStatus]) -> Table {
    let mut table =
        Table::new(["entrypoint", "listens on", "lets in", "accepted", "turned away", "blocked", "requests"]);
    for one in entrypoints {
        let lets_in = match (one.allow.is_empty(), &one.shadow) {
            (true, _) => "everybody".to_owned(),
            (false, None) => one.allow.join(", "),
            (false, Some(_)) => format!("everybody (SHADOW of {})", one.allow.join(", ")),
        };
        table.add([
            one.name.clone().into(),
            one.bind.join("\n").into(),
            lets_in.into(),
            one.accepted.to_string().into(),
            one.not_listed.to_string().into(),
            one.blocked.to_string().into(),
            one.requests.to_string().into(),
        ]);
    }
    table
}

fn servers(status: &StatusDocument) -> Table {
    let mut table = Table::new([
        "service", "balance", "server", "share", "status", "since", "why", "probe", "active", "requests",
        "failures",
    ]);
    for service in &status.services {
        for server in &service.servers {
            let status = match server.ejected_for {
                Some(left) => format!("{} for {left:.1} s", server.status),
                None => server.status.clone(),
            };
            let probe = server.probe_ms.map_or("-".to_owned(), |took| format!("{took:.1} ms"));
            // Why it gets no work is what matters; how it is stands beside.
            let drain = server
                .draining
                .as_ref()
                .map(|drain| (format!("draining ({status})"), drain.since.clone(), drain.sentence()));
            let (status, since, why) =
                drain.unwrap_or_else(|| (status, server.since.clone(), server.why.clone()));
            table.add([
                service.name.clone().into(),
                service.balance.clone().into(),
                named(server).into(),
                share(server).into(),
                Cell::toned(status, tone(server)),
                since.into(),
                why.into(),
                probe.into(),
                server.active.to_string().into(),
                server.requests.to_string().into(),
                server.failures.to_string().into(),
            ]);
        }
    }
    table
}

fn tone(server: &ServerStatus) -> Tone {
    match server.status.as_str() {
        "down" | "unresolved" => Tone::Bad,
        "ejected" | "starting" => Tone::Odd,
        _ if server.draining.is_some() => Tone::Odd,
        "up" => Tone::Good,
        _ => Tone::Plain,
    }
}

/// The address, and the name that stands for it.
fn named(server: &ServerStatus) -> String {
    match &server.name {
        Some(name) if server.status != "unresolved" => format!("{} ({name})", server.address),
        _ => server.address.clone(),
    }
}

/// By what a server gets its share of the work; its weight, and what isn't the usual.
fn share(server: &ServerStatus) -> String {
    let mut share = format!("weight {}", server.weight);
    if let Some(warmth) = server.warmth {
        let _ = write!(share, " at {:.0} %", warmth * 100.0);
    }
    if server.tier != 1 {
        let _ = write!(share, ", tier {}", server.tier);
    }
    if let Some(zone) = &server.zone {
        let _ = write!(share, ", zone {zone}");
    }
    if let Some(latency) = server.latency_ms {
        let _ = write!(share, ", {latency:.1} ms");
    }
    share
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
