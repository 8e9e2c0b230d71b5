//! `weir-lab`: the demonstration, a lab to play with, the benchmarks, and the servers that labs run.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use weir_lab::{bench, demo, upstream};

#[derive(Debug, Parser)]
#[command(name = "weir-lab", about = "Weir in a small internet of network namespaces", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell Weir's story on real traffic, then stay up
    Demo {
        /// End after the story; the exit code is 0 only if all of it happened
        #[arg(long)]
        once: bool,
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
    },
    /// Bring the lab and the daemon up, print how to use them, and wait for Ctrl-C
    Lab,
    /// Measure
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Remove what killed labs have left behind
    Sweep,
    /// A server behind the edge (started by labs)
    #[command(hide = true)]
    Upstream {
        #[arg(long)]
        name: String,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, requires_all = ["certificate", "key"])]
        listen_tls: Option<SocketAddr>,
        #[arg(long)]
        certificate: Option<PathBuf>,
        #[arg(long)]
        key: Option<PathBuf>,
        /// Where POSTs to /order are noted
        #[arg(long)]
        orders: Option<PathBuf>,
        /// fine, 503, hang or reset
        #[arg(long, default_value = "fine")]
        mood: String,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// ns per packet in the kernel, against a program that only drops; under flood, against nftables and ipset
    Gate {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
    },
    /// Of `gate`, only the flood
    Flood {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
    },
    /// Whole lists swapped under a flood: wrong verdicts, and how long a swap takes
    Reload {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
    },
    /// CPU time per proxied request, against nginx and HAProxy; over HTTP/2 and TLS, against nginx
    Http {
        /// Measure only HTTP/2
        #[arg(long)]
        only_h2: bool,
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How often each proxy is measured
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of load per measurement
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Servers that die, hang and return under load: what becomes of requests, against nginx and HAProxy
    Failover {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How often each fault is brought about
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Minutes of full load on servers that are well
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// CPU time per TLS handshake, full and resumed, against nginx
    Tls {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How often each proxy is measured
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of handshakes per measurement
        #[arg(long, default_value_t = 2)]
        seconds: u64,
    },
    /// Passthrough: CPU time per GB and per connection, and round trips, against plain forwarding and HAProxy
    Passthrough {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How often each way is measured; 0: only the minutes below
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Minutes of many connections a second
        #[arg(long, default_value_t = 0)]
        minutes: u64,
        /// How many of them
        #[arg(long, default_value_t = 10_000)]
        connections_per_second: u32,
    },
    /// Edge hosts in pairs: what visitors notice when one is lost, upgraded or without its store
    Fleet {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How often each thing is done that is measured
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Measure only this (may be given several times)
        #[arg(long, value_enum)]
        only: Vec<bench::fleet::Part>,
    },
    /// Memory per idle TLS connection, against nginx
    Memory {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How many connections are kept open
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// `/metrics` of many probed servers: how long a scrape takes, what requests notice, who is falsely taken for down
    Metrics {
        /// Print the figures as one JSON object on the last line
        #[arg(long)]
        json: bool,
        /// How many servers are probed
        #[arg(long, default_value_t = 1000)]
        servers: usize,
        /// How often they are asked for
        #[arg(long, default_value_t = 50)]
        scrapes: usize,
        /// Seconds without a free core
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo { once, json } => demo::run(&demo::Options { once, json }),
        Command::Lab => demo::lab(),
        Command::Bench { what: Bench::Gate { json } } => bench::gate(json),
        Command::Bench { what: Bench::Flood { json } } => bench::flood(json),
        Command::Bench { what: Bench::Reload { json } } => bench::reload::run(json),
        Command::Bench { what: Bench::Http { only_h2, json, rounds, seconds } } => {
            let options = bench::http::Options { json, rounds, seconds };
            if only_h2 { bench::http::over_h2(&options) } else { bench::http::run(&options) }
        }
        Command::Bench { what: Bench::Failover { json, rounds, minutes } } => {
            bench::failover::run(&bench::failover::Options { json, rounds, minutes })
        }
        Command::Bench { what: Bench::Tls { json, rounds, seconds } } => {
            bench::tls::run(&bench::tls::Options { json, rounds, seconds })
        }
        Command::Bench { what: Bench::Passthrough { json, rounds, minutes, connections_per_second } } => {
            let options = bench::passthrough::Options { json, rounds, minutes, connections_per_second };
            bench::passthrough::run(&options)
        }
        Command::Bench { what: Bench::Fleet { json, rounds, only } } => {
            bench::fleet::run(&bench::fleet::Options { json, rounds, only })
        }
        Command::Bench { what: Bench::Memory { json, connections } } => {
            bench::memory::run(&bench::memory::Options { json, connections })
        }
        Command::Bench { what: Bench::Metrics { json, servers, scrapes, seconds } } => {
            bench::metrics::run(&bench::metrics::Options { json, servers, scrapes, seconds })
        }
        Command::Sweep => {
            weir_lab::lab::remains::sweep();
            Ok(())
        }
        Command::Upstream { name, listen, listen_tls, certificate, key, orders, mood } => {
            let tls = listen_tls.zip(certificate.zip(key));
            let mood = upstream::Mood::of(&mood).unwrap_or(upstream::Mood::Fine);
            upstream::run(&upstream::Options { name, listen, tls, orders, mood })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            anstream::eprintln!("weir-lab: {why:#}");
            ExitCode::FAILURE
        }
    }
}
