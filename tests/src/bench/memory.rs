//! Memory per idle TLS connection: Weir and nginx in the same run. Every connection has answered a request, and is kept.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    http::peers::Peer,
    rounded,
    terminators::{Field, Terminator, client_config, connect},
};

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub connections: usize,
}

/// Connections that are being made at a time.
const AT_A_TIME: usize = 32;

/// One answer may take this long, while hundreds of others are made.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.connections > 0, "nothing to measure: give at least one connection");
    may_open(options.connections)?;
    let field = Field::set_up()?;
    let (mut figures, mut ratios) = (serde_json::Map::new(), serde_json::Map::new());
    let mut costs = Vec::new();
    for terminator in &field.terminators {
        let cost = measure(&field, terminator, options.connections)
            .with_context(|| format!("measuring {}", terminator.name))?;
        anstream::eprintln!("{}: {cost:.0} bytes for each idle connection", terminator.name);
        figures.insert(format!("{}_bytes_per_idle_conn", terminator.name), rounded(cost));
        costs.push(cost);
    }
    if let [ours, theirs] = costs[..] {
        ratios.insert("rss_per_idle_conn_vs_nginx".to_owned(), rounded(ours / theirs));
        anstream::eprintln!("weir ÷ nginx: {:.2}", ours / theirs);
    }
    figures.insert("connections".to_owned(), options.connections.into());
    figures.insert("nginx_version".to_owned(), Peer::find("nginx")?.version().into());
    if options.json {
        anstream::println!("{}", json!({ "bench": "memory", "ratios": ratios, "figures": figures }));
    }
    Ok(())
}

/// The client's end, and by inheritance each proxy's, needs a descriptor for each connection and some to spare.
fn may_open(connections: usize) -> anyhow::Result<()> {
    let wanted = connections as u64 + 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("{wanted} open files are not allowed here (`ulimit -n`)"))?;
    }
    Ok(())
}

/// Bytes of resident memory that a kept connection adds.
fn measure(field: &Field, to: &Terminator, connections: usize) -> anyhow::Result<f64> {
    let config = client_config(field.roots.clone(), None)?;
    let address = to.address;
    // What the first connections bring into memory (code, pools, tickets) is not the idle ones'.
    let warm_up = field.station.run(open(address, config.clone(), 200))??;
    drop(warm_up);
    let before = to.process.memory("VmRSS")?;
    let kept = field.station.run(open(address, config, connections))??;
    let after = to.process.memory("VmRSS")?;
    ensure!(kept.len() == connections, "only {} connections are open", kept.len());
    // They are closed here, and within a runtime.
    field.station.run(async move { drop(kept) })?;
    Ok(after.saturating_sub(before) as f64 / connections as f64)
}

/// So many connections, each of which has answered a request.
async fn open(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    connections: usize,
) -> anyhow::Result<Vec<TlsStream<TcpStream>>> {
    let share = connections.div_ceil(AT_A_TIME);
    let tasks: Vec<_> = (0..AT_A_TIME)
        .map(|task| {
            let config = config.clone();
            let mine = share.min(connections.saturating_sub(task * share));
            tokio::spawn(async move {
                let mut kept = Vec::with_capacity(mine);
                for _ in 0..mine {
                    kept.push(timeout(PATIENCE, answered(to, &config)).await??);
                }
                anyhow::Ok(kept)
            })
        })
        .collect();
    let mut all = Vec::with_capacity(connections);
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

async fn answered(to: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut stream = connect(to, config).await?;
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench.example\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello from the server\n") {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
        ensure!(answer.len() < 4096, "an odd answer: {}", String::from_utf8_lossy(&answer));
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "an odd answer: {}", String::from_utf8_lossy(&answer));
    Ok(stream)
}
