//! CPU per proxied request: Weir, nginx and HAProxy in the same run, in front of the same server.
//!
//! Everything runs in a namespace of its own, over its loopback. The proxies have one core, the load (wrk) and the
//! server behind (an nginx) another. The proxies are measured in turn, round after round, so that whatever else the
//! machine does hits all of them; noise only ever adds, so the smallest value of the rounds counts.

mod h2;
mod hosts;
pub mod peers;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::rounded;
use crate::lab::{
    Island,
    process::{Process, cpu_of},
    weir,
};
use peers::{Cores, Fields, Peer};

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub rounds: usize,
    pub seconds: u64,
}

/// As many as a busy edge keeps open to one worker; wrk's own unit.
const CONNECTIONS: usize = 64;

/// What is asked for.
const BODIES: [(&str, &str); 2] = [("small", "/small"), ("64k", "/64k")];

/// What Weir writes of a request.
#[derive(Debug, Clone, Copy)]
enum LogLine {
    /// The line that nginx writes, too.
    Combined,
    /// Its default, which tells more.
    Json,
}

/// The proxy that runs, and where.
struct Runner {
    name: &'static str,
    port: u16,
    process: Process,
    /// What wrk does in the place of asking for one URL.
    script: Option<PathBuf>,
}

/// CPU per request in µs: proxy and body → one value a round.
type Results = BTreeMap<(&'static str, &'static str), Vec<f64>>;

type Figures = serde_json::Map<String, serde_json::Value>;

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        options.rounds > 0 && options.seconds > 0,
        "nothing to measure: give at least one round and one second"
    );
    let island = Island::build()?;
    let cores = Cores::of_this_machine()?;
    let _server = peers::server(&island, &cores)?;
    let plain = |name, port, process| Runner { name, port, process, script: None };
    let mut runners = vec![
        plain("weir", 8001, our_own(&island, &cores, 8001, 0, LogLine::Combined)?),
        plain("nginx", 8002, peers::nginx(&island, &cores, 8002, Fields::Same)?),
        plain("haproxy", 8003, peers::haproxy(&island, &cores, 8003)?),
        plain("weir_json", 8006, our_own(&island, &cores, 8006, 0, LogLine::Json)?),
        plain("nginx_few", 8007, peers::nginx(&island, &cores, 8007, Fields::Few)?),
    ];
    for ((name, hosts), port) in hosts::PAIR.into_iter().zip(8004..) {
        let process = our_own(&island, &cores, port, hosts, LogLine::Combined)?;
        runners.push(Runner { name, port, process, script: Some(hosts::script(&island, hosts)?) });
    }
    for runner in &runners {
        peers::wait_until_it_serves(&island, runner.port)
            .with_context(|| format!("{} doesn't serve:\n{}", runner.name, runner.process.log_text()))?;
    }

    say(
        options,
        &format!(
            "CPU µs per request, {} rounds of {} s, {CONNECTIONS} connections",
            options.rounds, options.seconds
        ),
    );
    let mut results = Results::new();
    for round in 0..=options.rounds {
        for (body, path) in BODIES {
            // How many routes there are has nothing to do with what comes back.
            let wanted =
                |runner: &&Runner| body == "small" || (runner.script.is_none() && !runner.name.contains('_'));
            for runner in runners.iter().filter(wanted) {
                // Round 0 warms up: caches, pools, branch predictors.
                let seconds = if round == 0 { 1 } else { options.seconds };
                let cost = measure(&island, &cores, runner, path, seconds)
                    .with_context(|| format!("measuring {} with {path}", runner.name))?;
                if round > 0 {
                    results.entry((runner.name, body)).or_default().push(cost);
                }
            }
        }
        if round > 0 {
            say(options, &line(round, &results));
        }
    }
    drop(runners);
    let h2 = h2::measure(options).context("measuring HTTP/2")?;
    report(options, &results, &h2)
}

/// The part with HTTP/2 alone.
pub fn over_h2(options: &Options) -> anyhow::Result<()> {
    let (mut figures, mut ratios) = (serde_json::Map::new(), serde_json::Map::new());
    h2::measure(options)?.report(options, &mut figures, &mut ratios)?;
    print(options, &ratios, &figures);
    Ok(())
}

/// One load on one proxy: µs of its CPU time for each request.
fn measure(island: &Island, cores: &Cores, runner: &Runner, path: &str, seconds: u64) -> anyhow::Result<f64> {
    let url = format!("http://127.0.0.1:{}{path}", runner.port);
    let before = cpu_of(runner.process.pid())?;
    let requests = load(island, cores, &url, runner.script.as_deref(), seconds)?;
    let used = cpu_of(runner.process.pid())? - before;
    Ok(used.as_secs_f64() * 1e6 / requests as f64)
}

/// Runs wrk; how many requests were answered well. Any other answer spoils the figure, and fails.
fn load(
    island: &Island,
    cores: &Cores,
    url: &str,
    script: Option<&Path>,
    seconds: u64,
) -> anyhow::Result<u64> {
    let wrk = Peer::find("wrk")?;
    let mut command: Command = wrk.command(island, cores.aside)?;
    command.args(["-t", "1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{seconds}s")]);
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    command.arg(url);
    let output = command.output().context("can't run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for bad in ["Non-2xx", "Socket errors"] {
        if text.contains(bad) {
            bail!("not every request was answered well:\n{text}");
        }
    }
    text.lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .filter(|&requests: &u64| requests > 0)
        .with_context(|| format!("wrk made no requests:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Weir with a route for each of so many hosts; with none, one route for all.
fn our_own(island: &Island, cores: &Cores, port: u16, hosts: usize, log: LogLine) -> anyhow::Result<Process> {
    let format = match log {
        LogLine::Combined => "combined",
        LogLine::Json => "json",
    };
    let folder = island.folder();
    // By itself: Weir watches the folder of its configuration, and in this one logs are written all the time.
    let watched = folder.join(format!("weir-{port}"));
    std::fs::create_dir_all(&watched)?;
    let config = watched.join("weir.toml");
    std::fs::write(
        &config,
        format!(
            r#"[kernel]
mode = "off"

[admin]
bind = "127.0.0.1:{}"

[log]
access = "{}/weir-access-{port}.log"
format = "{format}"

[entrypoint.http]
bind = ["127.0.0.1:{port}"]

[service.app]
servers = ["127.0.0.1:{}"]

{}"#,
            port + 2000,
            folder.display(),
            peers::SERVER_PORT,
            hosts::routes(hosts)
        ),
    )?;
    // On one core only it makes one worker.
    let program = Peer { program: weir::program()?, libraries: Vec::new() };
    let mut command = program.command(island, cores.proxy)?;
    command.arg("run").arg(&config).env("NO_COLOR", "1");
    Process::start("weir", command, &folder.join(format!("weir-{port}.log")))
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn line(round: usize, results: &Results) -> String {
    let last = |(name, body): &(&str, &str), values: &Vec<f64>| {
        format!("{name} {body} {:.1}", values.last().copied().unwrap_or_default())
    };
    let parts: Vec<_> = results.iter().map(|(key, values)| last(key, values)).collect();
    format!("  round {round}: {}", parts.join("   "))
}

fn report(options: &Options, results: &Results, h2: &h2::Costs) -> anyhow::Result<()> {
    let mut figures = serde_json::Map::new();
    let mut ratios = serde_json::Map::new();
    for ((name, body), values) in results {
        figures.insert(format!("{name}_{body}_us_min"), rounded(least(values)));
        figures.insert(format!("{name}_{body}_us_median"), rounded(median(values)));
        say(
            options,
            &format!("{name:>8} {body:>5}: min {:5.1}  median {:5.1}", least(values), median(values)),
        );
    }
    for (body, infix) in [("small", ""), ("64k", "_64k")] {
        let ours = least(results.get(&("weir", body)).context("weir wasn't measured")?);
        for peer in ["nginx", "haproxy"] {
            let theirs =
                least(results.get(&(peer, body)).with_context(|| format!("{peer} wasn't measured"))?);
            ratios.insert(format!("cpu{infix}_vs_{peer}"), rounded(ours / theirs));
            say(options, &format!("weir ÷ {peer}, {body}: {:.2}", ours / theirs));
        }
    }
    // As both are without a word: another line in the log here, fewer fields passed on there.
    let [ours, theirs] =
        ["weir_json", "nginx_few"].map(|name| results.get(&(name, "small")).map(|values| least(values)));
    let (ours, theirs) = ours.zip(theirs).context("the other setting wasn't measured")?;
    ratios.insert("cpu_json_vs_nginx_few_fields".to_owned(), rounded(ours / theirs));
    say(options, &format!("weir with JSON ÷ nginx with fewer fields, small: {:.2}", ours / theirs));
    let [one, many] = hosts::PAIR.map(|(name, _)| results.get(&(name, "small")).map(|values| least(values)));
    let (one, many) = one.zip(many).context("weir wasn't measured with many hosts")?;
    ratios.insert("routes_10k_vs_1".to_owned(), rounded(many / one));
    say(options, &format!("weir with 10,000 hosts ÷ with one: {:.2}", many / one));
    h2.report(options, &mut figures, &mut ratios)?;
    figures.insert("connections".to_owned(), CONNECTIONS.into());
    figures.insert("rounds".to_owned(), options.rounds.into());
    for peer in ["nginx", "haproxy"] {
        figures.insert(format!("{peer}_version"), Peer::find(peer)?.version().into());
    }
    print(options, &ratios, &figures);
    Ok(())
}

fn print(options: &Options, ratios: &Figures, figures: &Figures) {
    if options.json {
        anstream::println!("{}", json!({ "bench": "http", "ratios": ratios, "figures": figures }));
    }
}

/// For people: not on stdout when a program reads that.
fn say(options: &Options, line: &str) {
    if options.json {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}

/// How long a proxy may take until it serves.
pub const PATIENCE: Duration = Duration::from_secs(10);
