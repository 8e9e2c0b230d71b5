//! Connections handed to the kernel, end to end: every byte of every transfer is checked, and what can't be handed over is
//! relayed.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use proxy_user::handover::{Candidate, Ended, How, Keeper, Limits, Refused, Standing, Who, hand_over};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/transfer.rs"]
mod transfer;

use scratch::{Neighbour, Scratch, in_scratch, ip};
use transfer::{HEAD, Manner, Wish, transfer};

const ENTRY: u16 = 443;
const SERVER: u16 = 8443;
const LIMITS: Limits =
    Limits { idle: Duration::from_secs(60), lifetime: None, linger: Duration::from_millis(300) };

fn entry(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:1::1]:443" } else { "192.0.2.1:443" }.parse().unwrap()
}

fn server(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:2::11]:8443" } else { "10.0.0.11:8443" }.parse().unwrap()
}

/// A client, an edge and a server; the edge's end is this namespace.
struct Lab {
    client: Neighbour,
    server: Neighbour,
}

impl Lab {
    fn new(scratch: &Scratch) -> Self {
        let client = scratch.neighbour("clients", "edge");
        let server = scratch.neighbour("servers", "edge");
        for (device, v4, v6) in
            [("clients", "192.0.2.1", "2001:db8:1::1"), ("servers", "10.0.0.1", "2001:db8:2::1")]
        {
            ip(&format!("addr add {v4}/24 dev {device}"));
            ip(&format!("addr add {v6}/64 dev {device} nodad"));
        }
        for (neighbour, v4, v6) in
            [(&client, "192.0.2.9", "2001:db8:1::9"), (&server, "10.0.0.11", "2001:db8:2::11")]
        {
            neighbour.run(move || {
                ip("link set lo up");
                ip(&format!("addr add {v4}/24 dev edge"));
                ip(&format!("addr add {v6}/64 dev edge nodad"));
            });
        }
        server.run(|| {
            for v6 in [false, true] {
                transfer::serve(TcpListener::bind(self::server(v6)).unwrap());
            }
        });
        Self { client, server }
    }

    /// Runs all of these at once and gives what went wrong.
    fn transfers(&self, wishes: Vec<(bool, Wish, Manner)>) -> Vec<String> {
        let (send, receive) = mpsc::channel();
        self.client.run(move || {
            for (v6, wish, manner) in wishes {
                let send = send.clone();
                thread::spawn(move || {
                    let outcome = transfer(entry(v6), wish, manner);
                    let _ = send
                        .send(outcome.err().map(|error| format!("v6: {v6}, {wish:?}, {manner:?}: {error}")));
                });
            }
        });
        receive.into_iter().flatten().collect()
    }

    /// Drops one packet in so many that come to the client and to the server.
    fn lose(&self, one_in: u32) {
        for neighbour in [&self.client, &self.server] {
            neighbour.run(move || {
                run("nft", "add table inet lossy");
                run("nft", "add chain inet lossy input { type filter hook input priority 0 ; }");
                run(
                    "nft",
                    &format!("add rule inet lossy input tcp dport 1-65535 numgen random mod {one_in} 0 drop"),
                );
            });
        }
    }

    fn lose_nothing(&self) {
        for neighbour in [&self.client, &self.server] {
            neighbour.run(|| run("nft", "delete table inet lossy"));
        }
    }
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{program} {arguments}");
}

/// An edge that hands over whatever it can and relays the rest. It ends when it is dropped, as a daemon that is killed: the
/// kernel goes on.
struct Edge {
    keeper: Arc<Keeper>,
    relayed: Arc<AtomicUsize>,
    ended: Arc<Mutex<Vec<Ended>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Edge {
    fn new(bpffs: &Path) -> Self {
        let interfaces = ["clients", "servers"];
        let keeper = Keeper::open(bpffs, &interfaces, &[ENTRY], 20_000..=20_999, LIMITS).unwrap();
        let (relayed, ended) = (Arc::default(), Arc::<Mutex<Vec<Ended>>>::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let serving = (keeper.clone(), Arc::clone(&relayed), ended.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                for v6 in [false, true] {
                    let listener = tokio::net::TcpListener::bind(entry(v6)).await.unwrap();
                    let serving = serving.clone();
                    tokio::spawn(async move {
                        loop {
                            let (client, _) = listener.accept().await.unwrap();
                            tokio::spawn(carry(client, server(v6), serving.clone()));
                        }
                    });
                }
                tokio::spawn(serving.0.clone().look_after());
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self { keeper, relayed, ended, stop: Some(stop), thread: Some(thread) }
    }

    fn standing(&self) -> Standing {
        self.keeper.standing().unwrap()
    }

    fn relayed(&self) -> usize {
        self.relayed.load(Ordering::Relaxed)
    }

    /// Waits until nothing is carried any more.
    fn is_empty(&self) {
        until("the table is empty", || self.standing().carried == 0);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

type Serving = (Arc<Keeper>, Arc<AtomicUsize>, Arc<Mutex<Vec<Ended>>>);

async fn carry(mut client: TcpStream, server: SocketAddr, (keeper, relayed, ended): Serving) {
    let mut first = vec![0; HEAD];
    if client.read_exact(&mut first).await.is_err() {
        return;
    }
    let wish = Wish::read(first[..].try_into().unwrap());
    while first.len() < HEAD + wish.hello as usize {
        let mut chunk = [0; 4096];
        match client.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => first.extend_from_slice(&chunk[..read]),
        }
    }
    let at_end = Box::new(move |one| ended.lock().unwrap().push(one));
    let candidate =
        Candidate { client, server, first, patience: Duration::from_secs(5), limits: LIMITS, at_end };
    if let Err(refused) = hand_over(&keeper, candidate).await {
        relayed.fetch_add(1, Ordering::Relaxed);
        let Refused { mut client, server: connected, first, .. } = *refused;
        let (mut upstream, _lease) = match connected {
            Some(side) => {
                let (stream, lease) = side.into_parts();
                (stream, Some(lease))
            }
            None => (TcpStream::connect(server).await.unwrap(), None),
        };
        if upstream.write_all(&first).await.is_ok() {
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn wish(seed: u64, hello: u64, upload: u64, download: u64) -> Wish {
    Wish { hello, upload, download, seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// Of many sizes, by both families, as clients do it.
fn many() -> Vec<(bool, Wish, Manner)> {
    let mut all = Vec::new();
    let mut seed = 1_u64;
    for v6 in [false, true] {
        for hello in [0, 200, 1_700, 13_000] {
            for (upload, download) in [(0, 1), (1, 0), (1_000, 100_000), (70_000, 20), (2_000_000, 3_000_000)]
            {
                seed += 1;
                let pieces = [None, Some(500)][seed as usize % 2];
                let manner = Manner { pieces, closes_first: seed.is_multiple_of(3) };
                // More than the server takes at once can't be among what comes before it is known.
                let upload = if hello == 13_000 { 0 } else { upload };
                all.push((v6, wish(seed, hello, upload, download), manner));
            }
        }
    }
    all
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} transfers went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn transfers_of_many_sizes_arrive_as_they_were_sent() {
    in_scratch("transfers_of_many_sizes_arrive_as_they_were_sent", |scratch| {
        let lab = Lab::new(scratch);
        let edge = Edge::new(&scratch.bpffs);
        none(&lab.transfers(many()));
        let standing = edge.standing();
        println!("{standing:?}, {} relayed", edge.relayed());
        assert!(standing.handed_over > 20, "{standing:?}");
        edge.is_empty();

        // Once more where checksums are made by the CPU, so that each is looked at.
        for device in ["clients", "servers"] {
            run("ethtool", &format!("-K {device} tx off"));
        }
        for neighbour in [&lab.client, &lab.server] {
            neighbour.run(|| run("ethtool", "-K edge tx off"));
        }
        none(&lab.transfers(many()));
        let again = edge.standing();
        assert!(again.handed_over > standing.handed_over + 20, "{again:?}");
        edge.is_empty();
        println!("{:?}, {} relayed", edge.standing(), edge.relayed());
        assert!(edge.ended.lock().unwrap().iter().all(|one| matches!(one.how, How::Closed(_))));
        assert!(edge.ended.lock().unwrap().iter().any(|one| one.how == How::Closed(Who::Client)));
        assert!(edge.ended.lock().unwrap().iter().any(|one| one.how == How::Closed(Who::Server)));
    });
}
