//! CPU per TLS handshake: Weir and nginx in the same run, with the same ECDSA P-256 certificate, TLS 1.3, X25519.
//!
//! A client on the other core shakes hands and closes, on eight connections at a time, and reads until the other end has
//! closed too: so all that belongs to a handshake, its tickets included, is done when it counts. The terminators are
//! measured in turn, round after round; noise only ever adds, so the smallest value of the rounds counts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    http::peers::Peer,
    rounded,
    terminators::{Field, Terminator, Tickets, client_config, connect, was},
};
use crate::lab::process::cpu_of;

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub rounds: usize,
    pub seconds: u64,
}

/// Handshakes at a time.
const AT_A_TIME: usize = 8;

const KINDS: [(&str, HandshakeKind); 2] = [("full", HandshakeKind::Full), ("resume", HandshakeKind::Resumed)];

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        options.rounds > 0 && options.seconds > 0,
        "nothing to measure: give at least one round and one second"
    );
    let field = Field::set_up()?;
    let mut results: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for (title, kind) in KINDS {
            for terminator in &field.terminators {
                // Round 0 warms up.
                let time = Duration::from_secs(if round == 0 { 1 } else { options.seconds });
                let cost = measure(&field, terminator, kind, time)
                    .with_context(|| format!("measuring {} ({title})", terminator.name))?;
                if round > 0 {
                    results.entry((terminator.name, title)).or_default().push(cost);
                    anstream::eprintln!("  round {round}: {} {title} {cost:.1} µs", terminator.name);
                }
            }
        }
    }
    let least = |name: &str, title: &str| -> anyhow::Result<f64> {
        let values = results.get(&(name, title)).with_context(|| format!("{name} wasn't measured"))?;
        Ok(values.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let (mut figures, mut ratios) = (serde_json::Map::new(), serde_json::Map::new());
    for (title, key) in [("full", "handshake_cpu_vs_nginx"), ("resume", "resume_cpu_vs_nginx")] {
        let (ours, theirs) = (least("weir", title)?, least("nginx", title)?);
        figures.insert(format!("weir_{title}_us_min"), rounded(ours));
        figures.insert(format!("nginx_{title}_us_min"), rounded(theirs));
        ratios.insert(key.to_owned(), rounded(ours / theirs));
        say(
            options,
            &format!("{title:>6}: weir {ours:.1} µs, nginx {theirs:.1} µs, ratio {:.2}", ours / theirs),
        );
    }
    figures.insert("rounds".to_owned(), options.rounds.into());
    figures.insert("nginx_version".to_owned(), Peer::find("nginx")?.version().into());
    if options.json {
        anstream::println!("{}", json!({ "bench": "tls", "ratios": ratios, "figures": figures }));
    }
    Ok(())
}

/// µs of the terminator's CPU time for each handshake of this kind.
fn measure(field: &Field, to: &Terminator, kind: HandshakeKind, time: Duration) -> anyhow::Result<f64> {
    let tickets = Arc::new(Tickets::default());
    let config =
        client_config(field.roots.clone(), (kind == HandshakeKind::Resumed).then(|| tickets.clone()))?;
    let address = to.address;
    if kind == HandshakeKind::Resumed {
        // The same configuration: a ticket is good only where the server was verified in the same way.
        let first = config.clone();
        field.station.run(async move { prime(address, &first).await })??;
        ensure!(tickets.count() >= AT_A_TIME, "it gave {} tickets", tickets.count());
    }
    let before = cpu_of(to.process.pid())?;
    let handshakes = field.station.run(async move { many(address, config, kind, time).await })??;
    let used = cpu_of(to.process.pid())? - before;
    ensure!(handshakes > 0, "no handshake was finished");
    Ok(used.as_secs_f64() * 1e6 / handshakes as f64)
}

/// Full handshakes at the same time, so that none can resume: a ticket for each that will go on.
async fn prime(to: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..AT_A_TIME {
        streams.push(connect(to, config).await?);
    }
    for mut stream in streams {
        stream.shutdown().await?;
        let _ = stream.read(&mut [0; 16]).await;
    }
    Ok(())
}

async fn many(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    kind: HandshakeKind,
    time: Duration,
) -> anyhow::Result<u64> {
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while Instant::now() < until {
                    one(to, &config, kind).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done)
}

/// One handshake from the first byte to the end of the connection.
async fn one(to: SocketAddr, config: &Arc<ClientConfig>, kind: HandshakeKind) -> anyhow::Result<()> {
    let mut stream = connect(to, config).await?;
    was(stream.get_ref().1, kind)?;
    stream.shutdown().await?;
    // The tickets come, and then the end, with or without a close_notify of theirs.
    let _ = stream.read(&mut [0; 16]).await;
    Ok(())
}

/// For people: not on stdout when a program reads that.
fn say(options: &Options, line: &str) {
    if options.json {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}
