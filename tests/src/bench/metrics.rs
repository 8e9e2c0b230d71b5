//! What looking costs: `/metrics` of a thousand probed servers, how long a scrape takes, and what requests notice of it. Then the
//! same on a starved machine: how many of these servers, which are all well, are taken for down.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;

use super::rounded;
use crate::lab::{
    load::{Load, Record},
    stand::Stand,
    wait,
};

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub servers: usize,
    pub scrapes: usize,
    /// Of starving.
    pub seconds: u64,
}

/// Each starved core has so many others that want it.
const BUSY_PER_CORE: usize = 4;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!((1..=60_000).contains(&options.servers) && options.scrapes > 0, "nothing to measure");
    let answering = Arc::new(AtomicBool::new(true));
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        // Before the daemon, whose first probes come at once.
        let listener = lab.edge.run(|| TcpListener::bind("0.0.0.0:9300"));
        let answering = answering.clone();
        server =
            Some(listener.map(|bound| bound.map(|bound| thread::spawn(move || answer(&bound, &answering)))));
        toml + &many(options.servers)
    })?;
    let server = server.context("nobody has asked for a configuration")???;
    let measured = measure(&stand, options);
    answering.store(false, Ordering::Relaxed);
    // So that it is noticed.
    let _ = stand.lab.edge.run(|| std::net::TcpStream::connect("127.0.0.1:9300"));
    let _ = server.join();
    measured
}

fn measure(stand: &Stand, options: &Options) -> anyhow::Result<()> {
    wait::until_true("all servers are up", PATIENCE, || Ok(down(stand)? == 0))?;
    let load = stand.load("/", 200)?;
    let (began_cpu, before) = (stand.weir.process().cpu()?, Instant::now());
    let quiet = slowest_percent(&load, Duration::from_secs(5))?;
    // Probes and requests go on while it is scraped.
    let all_else = (stand.weir.process().cpu()? - began_cpu).as_secs_f64() / before.elapsed().as_secs_f64();

    let (began_cpu, mut times, mut series) = (stand.weir.process().cpu()?, Vec::new(), 0);
    let before = Instant::now();
    for _ in 0..options.scrapes {
        let began = Instant::now();
        let text = stand.weir.admin().get("/metrics")?.text();
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        series = text.lines().filter(|line| !line.starts_with('#')).count();
    }
    let cpu = (stand.weir.process().cpu()? - began_cpu).as_secs_f64();
    let cpu = (cpu - all_else * before.elapsed().as_secs_f64()) * 1000.0 / options.scrapes as f64;
    let scraped = percentile(&load.records_since(before), 0.99).context("no request was answered")?;
    drop(load);
    times.sort_by(f64::total_cmp);
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);

    let falls_before = falls(stand)?;
    starve(Duration::from_secs(options.seconds));
    let falsely = falls(stand)? - falls_before;

    anstream::eprintln!("{series} series of {} servers", options.servers);
    anstream::eprintln!("a scrape: median {median:.1} ms, longest {most:.1} ms; its CPU {cpu:.1} ms");
    anstream::eprintln!("p99 of requests meanwhile: {scraped:.1} ms; without scrapes {quiet:.1} ms");
    anstream::eprintln!("falsely down in {} s on a starved machine: {falsely}", options.seconds);
    if options.json {
        let figures = json!({
            "servers": options.servers, "series": series, "scrape_ms_median": rounded(median),
            "scrape_ms_longest": rounded(most), "cpu_ms_per_scrape": rounded(cpu),
            "request_ms_p99": rounded(scraped), "request_ms_p99_quiet": rounded(quiet), "falsely_down": falsely,
        });
        anstream::println!("{}", json!({ "bench": "metrics", "figures": figures }));
    }
    Ok(())
}

/// All at one listener, by as many addresses of loopback.
fn many(servers: usize) -> String {
    let all: Vec<String> =
        (0..servers).map(|nth| format!("\"127.1.{}.{}:9300\"", nth / 250, nth % 250 + 1)).collect();
    format!(
        "\n[service.many]\nservers = [{}]\n\
         health = {{ path = \"/\", every = \"1s\", timeout = \"250ms\", fall = 2, rise = 2 }}\n\
         [[route]]\nhost = \"many.example\"\nservice = \"many\"\n",
        all.join(", ")
    )
}

fn answer(listener: &TcpListener, answering: &AtomicBool) {
    for stream in listener.incoming() {
        if !answering.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        // A probe's request is there as soon as it is connected, or never.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
        if stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    }
}

fn servers(stand: &Stand) -> anyhow::Result<Vec<serde_json::Value>> {
    let document = stand.weir.admin().get("/api/v1/servers")?.json()?;
    let all = document["servers"].as_array().context("no servers")?;
    Ok(all.iter().filter(|server| server["service"] == "many").cloned().collect())
}

fn down(stand: &Stand) -> anyhow::Result<usize> {
    let all = servers(stand)?;
    ensure!(!all.is_empty(), "the servers are not told of");
    Ok(all.iter().filter(|server| server["status"] != "up").count())
}

/// How often one of them went down so far. (The last thousand events are kept, which is enough to tell well from ill.)
fn falls(stand: &Stand) -> anyhow::Result<usize> {
    let events = stand.weir.admin().get("/api/v1/events")?.json()?;
    let all = events["events"].as_array().context("no events")?;
    let is_fall = |event: &&serde_json::Value| event["kind"] == "server_down" && event["service"] == "many";
    Ok(all.iter().filter(is_fall).count())
}

/// Threads that want every core for themselves.
fn starve(span: Duration) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..cores * BUSY_PER_CORE)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    thread::sleep(span);
    stop.store(true, Ordering::Relaxed);
    for one in busy {
        let _ = one.join();
    }
}

fn slowest_percent(load: &Load, span: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    load.wait_for("a request begins after that time", began + span, span + PATIENCE, |_| true)?;
    percentile(&load.records_since(began), 0.99).context("no request was answered")
}

/// In milliseconds.
fn percentile(records: &[Record], share: f64) -> Option<f64> {
    let mut times: Vec<f64> = records.iter().map(|record| record.took.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    let at = ((times.len() as f64 * share) as usize).min(times.len().checked_sub(1)?);
    times.get(at).copied()
}
